"""Warm snapshots: found when they fit, refused when not, made once, and gone when unused."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from runtools.errors import BuildFailed, CapacityExhausted
from runtools.platform.core.ports.driver import Machine, VmmFailed
from runtools.platform.host.templates import warm as module
from runtools.platform.host.templates.images import Image
from runtools.platform.host.templates.warm import Warm
from runtools.platform.kit.clock import SystemClock
from runtools.testing.local_driver import LocalDriver
from runtools.testing.null_network import NullNetwork


class Booths(LocalDriver):
    """A driver whose machines are only written down."""

    def __init__(self) -> None:
        super().__init__()
        self.live: set[str] = set()
        self.boots = 0
        self.vmm = "one"
        self.failure: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.gone = asyncio.Event()
        self.gone.set()
        self.ending = self.stuck = False
        self.ended: list[str] = []

    def fingerprint(self, machine: Machine) -> dict[str, str]:
        return {"vmm": self.vmm, "cpu": "max", "size": f"{machine.vcpus}x{machine.memory_mb}"}

    async def boot(self, machine: Machine) -> None:
        self.boots += 1
        self.live.add(machine.id)
        await self.go.wait()
        if self.failure is not None:
            raise self.failure

    async def capture(
        self,
        machine: Machine,
        into: Path,
        while_still: Callable[[], Awaitable[None]],
        keep_free: int = 0,
    ) -> float:
        assert machine.id in self.live
        if keep_free >= 1 << 60:
            raise CapacityExhausted("no room to go on copying", hint="make some")
        (into / "ram").write_bytes(b"r" * 100_000)
        await while_still()
        return 1.0

    async def kill(self, machine: Machine) -> None:
        self.ending = True
        await self.gone.wait()
        if self.stuck:
            raise VmmFailed("it does not go")
        self.live.discard(machine.id)
        self.ended.append(machine.id)


@pytest.fixture(autouse=True)
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rehearse(*_: object) -> str:
        return "the-token"

    monkeypatch.setattr(module, "rehearse", rehearse)


@pytest.fixture
def driver() -> Booths:
    return Booths()


@pytest.fixture
def network() -> NullNetwork:
    return NullNetwork()


@pytest.fixture
async def warm(tmp_path: Path, driver: Booths, network: NullNetwork) -> AsyncIterator[Warm]:
    yield open_again(tmp_path, driver, network)
    assert driver.live == set()
    assert network.taken == set()


def open_again(
    home: Path, driver: Booths, network: NullNetwork, limit: int = 1 << 40, keep_free: int = 0
) -> Warm:
    return Warm(
        home,
        driver,
        network,
        SystemClock(),
        uids=range(4),
        limit_bytes=limit,
        keep_free=keep_free,
    )


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return an_image(tmp_path, "tpl_one")


def an_image(home: Path, version_id: str) -> Image:
    at = home / "templates" / version_id
    return Image(version_id, "mine", 1, at, at / "base", at / "kernel", at / "initrd", 1)


class TestMake:
    async def test_is_found_afterwards(self, warm: Warm, driver: Booths, image: Image) -> None:
        assert await warm.find(image, driver, 2, 1024) is None
        path = await warm.make(image, 2, 1024)
        assert await warm.find(image, driver, 2, 1024) == path
        assert (path / "overlay.img").stat().st_size == 2048 << 20
        assert warm.token(path) == "the-token"

    async def test_only_for_its_size(self, warm: Warm, driver: Booths, image: Image) -> None:
        await warm.make(image, 2, 1024)
        assert await warm.find(image, driver, 1, 1024) is None
        assert await warm.find(image, driver, 2, 2048) is None

    async def test_many_at_once_make_one(self, warm: Warm, driver: Booths, image: Image) -> None:
        paths = await asyncio.gather(*(warm.make(image, 2, 1024) for _ in range(5)))
        assert len(set(paths)) == 1
        assert driver.boots == 1

    async def test_secrets_are_the_owners_alone(self, warm: Warm, image: Image) -> None:
        path = await warm.make(image, 2, 1024)
        assert (path / "warm.json").stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize("failure", [VmmFailed("no"), BuildFailed("no"), OSError("no")])
    async def test_failure_leaves_nothing(
        self, warm: Warm, driver: Booths, image: Image, tmp_path: Path, failure: Exception
    ) -> None:
        driver.failure = failure
        with pytest.raises((BuildFailed, OSError)):
            await warm.make(image, 2, 1024)
        assert list((tmp_path / "warm").iterdir()) == []

    async def test_one_for_which_there_is_no_room_says_so_and_leaves_nothing(
        self, driver: Booths, network: NullNetwork, image: Image, tmp_path: Path
    ) -> None:
        """What sandboxes need of the disk stays free, and the machine that was warmed is gone."""
        warm = open_again(tmp_path, driver, network, keep_free=1 << 60)
        with pytest.raises(BuildFailed, match="no warm snapshot: no room to go on") as told:
            await warm.make(image, 2, 1024)
        assert told.value.hint == "make some"
        assert driver.live == set()
        assert network.taken == set()
        assert list((tmp_path / "warm").iterdir()) == []

    async def test_the_disk_keeps_its_headroom_too(
        self, driver: Booths, network: NullNetwork, image: Image, tmp_path: Path
    ) -> None:
        """More than there is; the driver, which would copy next to nothing, takes no offence."""
        warm = open_again(tmp_path, driver, network, keep_free=(1 << 60) - 1)
        with pytest.raises(BuildFailed, match="MB are free above the headroom"):
            await warm.make(image, 2, 1024)
        assert list((tmp_path / "warm").iterdir()) == []

    async def test_cancelled_leaves_nothing(
        self, warm: Warm, driver: Booths, image: Image, tmp_path: Path
    ) -> None:
        driver.go.clear()
        making = asyncio.create_task(warm.make(image, 2, 1024))
        while not driver.live:
            await asyncio.sleep(0.01)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert list((tmp_path / "warm").iterdir()) == []

    async def test_cancelled_while_its_machine_is_being_ended_leaves_none(
        self, warm: Warm, driver: Booths, image: Image, tmp_path: Path, network: NullNetwork
    ) -> None:
        driver.gone.clear()
        making = asyncio.create_task(warm.make(image, 2, 1024))
        while not driver.ending:
            await asyncio.sleep(0.01)
        making.cancel()
        await asyncio.wait({making}, timeout=0.05)
        assert not making.done()
        assert list(tmp_path.glob("warm/.making-*/machine.json"))
        driver.gone.set()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert driver.live == set()
        assert list((tmp_path / "warm").iterdir()) == []

    async def test_a_machine_that_cannot_be_ended_is_so_before_the_next(
        self, warm: Warm, driver: Booths, image: Image, tmp_path: Path
    ) -> None:
        driver.stuck = True
        with pytest.raises(BuildFailed, match="it does not go"):
            await warm.make(image, 2, 1024)
        with pytest.raises(BuildFailed, match="it does not go"):
            await warm.make(image, 2, 1024)
        assert (len(driver.live), driver.boots) == (1, 1)
        assert list(tmp_path.glob("warm/.making-*/machine.json"))
        driver.stuck = False
        path = await warm.make(image, 2, 1024)
        assert driver.ended == [f"warm-{image.version_id}-2x1024"] * 2
        assert list((tmp_path / "warm").iterdir()) == [path]

    async def test_one_that_cannot_be_ended_keeps_nobody_from_starting(
        self, warm: Warm, driver: Booths, network: NullNetwork, image: Image, tmp_path: Path
    ) -> None:
        driver.stuck = True
        with pytest.raises(BuildFailed, match="it does not go"):
            await warm.make(image, 2, 1024)
        again = open_again(tmp_path, driver, network)
        assert await again.reclaim() == 0
        assert list(tmp_path.glob("warm/.making-*/machine.json"))
        driver.stuck = False
        assert await again.reclaim() == 1
        assert driver.live == set()

    async def test_cancelled_when_it_is_there_it_is_kept_and_can_be_forgotten(
        self, warm: Warm, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there, go, remove = threading.Event(), threading.Event(), shutil.rmtree

        def told(folder: Path, **options: bool) -> None:
            if list(tmp_path.glob("warm/tpl_one*")):
                there.set()
                go.wait(60)
            remove(folder, **options)

        monkeypatch.setattr(shutil, "rmtree", told)
        making = asyncio.create_task(warm.make(image, 2, 1024))
        while not there.is_set():
            await asyncio.sleep(0)
        making.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert warm.used_bytes()
        await warm.forget(image.version_id)
        assert list((tmp_path / "warm").iterdir()) == []


class TestFit:
    async def test_an_unfit_one_is_named_and_removed(
        self, warm: Warm, driver: Booths, image: Image, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = await warm.make(image, 2, 1024)
        driver.vmm = "two"
        with caplog.at_level(logging.WARNING):
            assert await warm.find(image, driver, 2, 1024) is None
        assert f"{path.name} is unfit: vmm changed" in caplog.text
        assert not path.exists()

    async def test_and_is_made_anew(self, warm: Warm, driver: Booths, image: Image) -> None:
        await warm.make(image, 2, 1024)
        driver.vmm = "two"
        path = await warm.make(image, 2, 1024)
        assert await warm.find(image, driver, 2, 1024) == path
        assert driver.boots == 2


class TestPrune:
    async def test_the_longest_unused_goes_first(
        self, warm: Warm, driver: Booths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_JUST_USED_SECONDS", 0.0)
        images = [an_image(tmp_path, f"tpl_{n}") for n in range(3)]
        paths = [await warm.make(each, 2, 1024) for each in images]
        await warm.find(images[0], driver, 2, 1024)
        assert await warm.prune(warm.used_bytes() - 1) == 1
        assert [path.exists() for path in paths] == [True, False, True]

    async def test_keeps_what_it_is_told_to(
        self, warm: Warm, image: Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_JUST_USED_SECONDS", 0.0)
        path = await warm.make(image, 2, 1024)
        assert await warm.prune(0, [path]) == 0
        assert await warm.prune(0) == 1
        assert warm.used_bytes() == 0

    async def test_spares_one_that_was_just_handed_out(
        self, warm: Warm, driver: Booths, image: Image
    ) -> None:
        path = await warm.make(image, 2, 1024)
        await warm.find(image, driver, 2, 1024)
        assert await warm.prune(0) == 0
        assert path.exists()

    async def test_a_new_one_makes_room_within_the_limit(
        self,
        tmp_path: Path,
        driver: Booths,
        network: NullNetwork,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "_JUST_USED_SECONDS", 0.0)
        warm = open_again(tmp_path, driver, network, limit=1)
        first = await warm.make(an_image(tmp_path, "tpl_a"), 2, 1024)
        second = await warm.make(an_image(tmp_path, "tpl_b"), 2, 1024)
        assert not first.exists()
        assert second.exists()

    async def test_forget_removes_those_of_a_version(
        self, warm: Warm, image: Image, tmp_path: Path
    ) -> None:
        gone = [await warm.make(image, 1, 512), await warm.make(image, 2, 1024)]
        stays = await warm.make(an_image(tmp_path, "tpl_other"), 2, 1024)
        await warm.forget("tpl_one")
        assert [path.exists() for path in [*gone, stays]] == [False, False, True]

    async def test_two_may_forget_a_version_and_one_remove_what_is_too_much_at_once(
        self, warm: Warm, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = [await warm.make(image, 1, 512), await warm.make(image, 2, 1024)]
        stays = await warm.make(an_image(tmp_path, "tpl_other"), 2, 1024)
        monkeypatch.setattr(module, "_JUST_USED_SECONDS", 0.0)
        forgetting = [warm.forget("tpl_one") for _ in range(2)]
        pruned, *_ = await asyncio.gather(warm.prune(0, [stays]), *forgetting)
        assert [path.exists() for path in [*gone, stays]] == [False, False, True]
        assert pruned == 1  # the other was forgotten before its turn came

    async def test_one_in_the_making_is_not_kept_where_its_version_is_forgotten(
        self, warm: Warm, driver: Booths, image: Image, tmp_path: Path
    ) -> None:
        """A size that a create has asked for, of a template that is deleted while its machine boots."""
        driver.go.clear()
        making = asyncio.create_task(warm.make(image, 4, 2048))
        async with asyncio.timeout(60):
            while not driver.boots:
                await asyncio.sleep(0)
        await warm.forget(image.version_id)
        driver.go.set()
        with pytest.raises(BuildFailed, match="mine@1 was deleted"):
            await making
        assert list((tmp_path / "warm").iterdir()) == []


class TestRestart:
    async def test_finds_them_again(
        self, warm: Warm, driver: Booths, network: NullNetwork, image: Image, tmp_path: Path
    ) -> None:
        path = await warm.make(image, 2, 1024)
        again = open_again(tmp_path, driver, network)
        assert await again.reclaim() == 0
        assert await again.find(image, driver, 2, 1024) == path
        assert again.token(path) == "the-token"

    async def test_one_of_another_release_is_made_anew(
        self, warm: Warm, driver: Booths, network: NullNetwork, image: Image, tmp_path: Path
    ) -> None:
        path = await warm.make(image, 2, 1024)
        (path / "warm.json").write_text('{"form": "of tomorrow"}')
        again = open_again(tmp_path, driver, network)
        assert await again.reclaim() == 1
        assert await again.make(image, 2, 1024) == path
        assert again.token(path) == "the-token"

    async def test_ends_the_machine_of_one_in_the_making(
        self, driver: Booths, network: NullNetwork, image: Image, tmp_path: Path
    ) -> None:
        warm = open_again(tmp_path, driver, network)
        driver.go.clear()
        making = asyncio.create_task(warm.make(image, 2, 1024))
        while not driver.live:
            await asyncio.sleep(0.01)
        # As a kill would leave it: the machine lives, its note lies there, nobody is at work on it.
        note = next((tmp_path / "warm").glob(".making-*/machine.json")).read_bytes()
        making.cancel()
        await asyncio.wait([making])
        left = tmp_path / "warm/.making-left"
        left.mkdir()
        (left / "machine.json").write_bytes(note)
        driver.live.add("warm-tpl_one-2x1024")
        assert await open_again(tmp_path, driver, network).reclaim() == 1
        assert driver.live == set()
        assert list((tmp_path / "warm").iterdir()) == []

    @pytest.mark.parametrize("note", [b"", b'{"machineId": "warm-tpl_o'])
    async def test_a_note_that_a_power_loss_took_stops_no_start(
        self, driver: Booths, network: NullNetwork, tmp_path: Path, note: bytes
    ) -> None:
        left = tmp_path / "warm/.making-left"
        left.mkdir(parents=True)
        (left / "machine.json").write_bytes(note)
        assert await open_again(tmp_path, driver, network).reclaim() == 1
        assert list((tmp_path / "warm").iterdir()) == []
