"""Builds as jobs: what is kept of one that passed, failed, was cut off or is cancelled."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtools.errors import BuildFailed, Conflict, InvalidRequest, NotFound, Unavailable
from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.platform.core.ports.network import Network
from runtools.platform.host.templates import service
from runtools.platform.host.templates.build import Workshop, clear
from runtools.platform.host.templates.buildlog import BuildLog
from runtools.platform.host.templates.images import Image
from runtools.platform.host.templates.record import Record
from runtools.platform.host.templates.service import Templates
from runtools.platform.kit.clock import SystemClock
from runtools.testing.null_network import NullNetwork


class Oven:
    """Stands in for the steps of a build: made to wait, to fail, and counted."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.failure: Exception | None = None
        self.at_once = self.most_at_once = 0

    async def build(self, order: BuildOrder, shop: Workshop, folder: Path, log: BuildLog) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            log.step("packages", 0.0, 0.5)
            for name in ("base.erofs", "kernel", "initrd"):
                (folder / name).write_bytes(b"x" * 5000)
            await self.go.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.at_once -= 1


class Warmer:
    """Stands in for `Warm`."""

    network: Network = NullNetwork()

    def __init__(self) -> None:
        self.made: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.forgotten: list[str] = []
        self.failure: Exception | None = None
        self.booting = False
        self.go = asyncio.Event()
        self.go.set()

    async def make(
        self, image: Image, vcpus: int, memory_mb: int, say: Callable[[str], None]
    ) -> Path:
        say("booting")
        self.booting = True
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        self.made.append(image.version_id)
        self.sizes.append((vcpus, memory_mb))
        return image.folder

    async def forget(self, version_id: str) -> None:
        self.forgotten.append(version_id)


class Sweeper:
    """Clears the workshop, made to wait."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self._begun = asyncio.Event()

    async def clear(self, shop: Workshop, version_id: str) -> None:
        (shop.work / version_id).mkdir(parents=True, exist_ok=True)
        self._begun.set()
        await self.go.wait()
        await clear(shop, version_id)

    async def is_cleared(self) -> None:
        """Wait until it begins."""
        async with asyncio.timeout(60):
            await self._begun.wait()
        self._begun.clear()


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> Sweeper:
    made = Sweeper()
    monkeypatch.setattr(service, "clear", made.clear)
    return made


@pytest.fixture
def oven(monkeypatch: pytest.MonkeyPatch) -> Oven:
    oven = Oven()
    monkeypatch.setattr(service, "build", oven.build)
    return oven


@pytest.fixture
def warmer() -> Warmer:
    return Warmer()


@pytest.fixture
def templates(tmp_path: Path, oven: Oven, warmer: Warmer) -> Templates:
    return open_again(tmp_path, warmer)


def open_again(home: Path, warmer: Warmer) -> Templates:
    return Templates(home, SystemClock(), mirror="", warm=warmer)


def order(version_id: str = "tpl_one", **changes: Any) -> BuildOrder:
    plain = BuildOrder(
        version_id=version_id, slug="mine", version=1, recipe="base-debian", apt=[], run=None
    )
    return plain.model_copy(update=changes)


async def ended(templates: Templates, version_id: str = "tpl_one") -> Built:
    async with asyncio.timeout(60):
        async for _ in templates.build_log(version_id, 0):
            pass
        return await templates.built(version_id)


class TestBuild:
    async def test_ready_with_files_and_a_warm_snapshot(
        self, templates: Templates, warmer: Warmer, tmp_path: Path
    ) -> None:
        await templates.build(order())
        built = await ended(templates)
        assert (built.state, built.progress, built.error) == ("ready", 1.0, None)
        image = templates.image("tpl_one")
        assert image.base.parent == tmp_path / "templates/tpl_one"
        assert image.size_bytes >= 15_000
        assert templates.all() == [image]
        assert warmer.made == ["tpl_one"]

    async def test_a_desktop_is_warm_in_the_size_that_it_is_made_in(
        self, templates: Templates, warmer: Warmer
    ) -> None:
        await templates.build(order(recipe="desktop-debian"))
        assert (await ended(templates)).state == "ready"
        assert warmer.sizes == [(2, 2048)]
        assert templates.image("tpl_one").rehearsal

    async def test_kasmvnc_without_a_package_is_refused(self, templates: Templates) -> None:
        with pytest.raises(InvalidRequest, match="needs a package of KasmVNC") as caught:
            await templates.build(order(recipe="desktop-debian-kasmvnc"))
        assert "the setting kasmvnc" in (caught.value.hint or "")

    async def test_a_repeat_is_answered(self, templates: Templates, oven: Oven) -> None:
        await asyncio.gather(*(templates.build(order()) for _ in range(3)))
        await ended(templates)
        assert (await templates.build(order())).state == "ready"
        assert oven.most_at_once == 1

    async def test_one_at_a_time(self, templates: Templates, oven: Oven) -> None:
        names = [f"tpl_{n}" for n in range(4)]
        for name in names:
            await templates.build(order(name))
        for name in names:
            assert (await ended(templates, name)).state == "ready"
        assert oven.most_at_once == 1

    async def test_one_that_waits_says_so(self, templates: Templates, oven: Oven) -> None:
        oven.go.clear()
        await templates.build(order("tpl_a"))
        assert (await templates.build(order("tpl_b"))).step == "queued"
        await templates.build(order("tpl_c"))
        await templates.stop()
        said = [line.text async for line in templates.build_log("tpl_c", 0)]
        assert said[:2] == ["== queued", "one is built at a time, and orgs take turns: 2 before it"]

    async def test_orgs_take_turns(self, templates: Templates, oven: Oven) -> None:
        oven.go.clear()
        for name in ("tpl_a1", "tpl_a2", "tpl_a3"):
            await templates.build(order(name, org_id="org_a"))
        await templates.build(order("tpl_b", org_id="org_b"))
        said = templates.build_log("tpl_b", 0)
        assert [(await anext(said)).text for _ in range(2)][1].endswith(
            "orgs take turns: 1 before it"
        )
        oven.go.set()
        assert (await ended(templates, "tpl_b")).state == "ready"
        assert (await templates.built("tpl_a1")).state == "ready"
        assert (await templates.built("tpl_a3")).state == "building"
        assert (await ended(templates, "tpl_a3")).state == "ready"

    async def test_a_long_log_is_told_in_pieces(self, templates: Templates) -> None:
        """Others have their turn between them, while it is followed and when it is read again."""
        await templates.build(order())
        log = templates._logs["tpl_one"]
        for _ in range(2000):
            log.line("")
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for _ in range(2):
            seen = at_once = most = 0
            async for _line in templates.build_log("tpl_one", 0):
                at_once = at_once + 1 if turns == seen else 1
                seen, most = turns, max(most, at_once)
            assert most <= 128
        task.cancel()

    async def test_is_not_to_be_had_before_it_is_ready(
        self, templates: Templates, oven: Oven
    ) -> None:
        oven.go.clear()
        await templates.build(order())
        with pytest.raises(BuildFailed, match="not ready"):
            templates.image("tpl_one")
        oven.go.set()
        await ended(templates)
        templates.image("tpl_one")

    @pytest.mark.parametrize(
        "bad",
        [{"recipe": "windows"}, {"apt": ["--force"]}, {"version_id": "../../etc"}],
    )
    async def test_bad_orders_leave_nothing(
        self, templates: Templates, tmp_path: Path, bad: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidRequest):
            await templates.build(order(**bad))
        assert list((tmp_path / "templates").iterdir()) == []

    async def test_an_untested_recipe_says_so(self, templates: Templates) -> None:
        await templates.build(order(recipe="base-ubuntu"))
        lines = [line.text async for line in templates.build_log("tpl_one", 0)]
        assert any("untested" in text for text in lines)


class TestFailure:
    async def test_one_that_would_take_of_the_headroom_is_not_begun(
        self, warmer: Warmer, tmp_path: Path
    ) -> None:
        """The disk has room for it, but then sandboxes were paused for it."""
        templates = Templates(tmp_path, SystemClock(), mirror="", warm=warmer, keep_free=1 << 60)
        await templates.build(order())
        built = await ended(templates)
        assert built.state == "failed"
        assert "a build needs 4096 MB of disk, 0 MB are free above the headroom" in built.error
        assert warmer.made == []
        assert not list((tmp_path / "work").iterdir())

    async def test_one_that_gives_way_says_so_and_the_next_is_begun(
        self, templates: Templates, oven: Oven, tmp_path: Path
    ) -> None:
        assert not templates.give_way()
        oven.go.clear()
        await templates.build(order())
        await templates.build(order("tpl_two"))
        async with asyncio.timeout(60):
            while not oven.at_once:
                await asyncio.sleep(0)
        assert templates.give_way()
        assert templates.give_way()  # till nothing of it is left
        built = await ended(templates)
        assert built.state == "failed"
        assert "the host's disk was almost full" in built.error
        oven.go.set()
        assert (await ended(templates, "tpl_two")).state == "ready"
        assert not templates.give_way()

    async def test_one_whose_workshop_is_cleared_is_only_waited_for(
        self, templates: Templates, oven: Oven, workshop: Sweeper
    ) -> None:
        """What it took is on its way back, and it may be whole, or say itself why it is not."""
        workshop.go.clear()
        for name, failure in (("tpl_one", None), ("tpl_two", BuildFailed("no such package"))):
            oven.failure = failure
            await templates.build(order(name))
            await workshop.is_cleared()
            assert templates.give_way()
            workshop.go.set()
            built = await ended(templates, name)
            workshop.go.clear()
            assert (built.state, built.error) == (
                ("failed", "no such package") if failure else ("ready", None)
            )

    async def test_no_second_cut_leaves_the_workshop_as_it_is(
        self, templates: Templates, oven: Oven, workshop: Sweeper, tmp_path: Path
    ) -> None:
        oven.go.clear()
        workshop.go.clear()
        await templates.build(order())
        async with asyncio.timeout(60):
            while not oven.at_once:
                await asyncio.sleep(0)
        assert templates.give_way()
        await workshop.is_cleared()
        dropping = asyncio.create_task(templates.drop("tpl_one"))
        await asyncio.wait({dropping}, timeout=0.05)
        assert (tmp_path / "work/tpl_one").exists()
        workshop.go.set()
        await dropping
        assert not (tmp_path / "work/tpl_one").exists()

    @pytest.mark.parametrize("step", ["packages", "first boot"])
    async def test_one_that_never_ends_is_ended_and_the_next_is_begun(
        self, oven: Oven, warmer: Warmer, tmp_path: Path, step: str
    ) -> None:
        templates = Templates(tmp_path, SystemClock(), mirror="", warm=warmer, limit_seconds=0.3)
        stands = oven if step == "packages" else warmer
        stands.go.clear()
        await templates.build(order())
        await templates.build(order("tpl_two"))
        built = await ended(templates)
        stands.go.set()
        assert built.state == "failed"
        assert f"{step}: a build may take 0.005 minutes" in (built.error or "")
        assert "the setting build_minutes" in (built.error or "")
        kept = {file.name for file in (tmp_path / "templates/tpl_one").iterdir()}
        assert kept == {"build.log", "template.json"}
        assert not (tmp_path / "work/tpl_one").exists()
        # What it waited for its turn is not counted.
        assert (await ended(templates, "tpl_two")).state == "ready"

    async def test_one_in_its_first_boot_is_let_be_and_waited_for_by_nobody(
        self, templates: Templates, warmer: Warmer
    ) -> None:
        warmer.go.clear()
        await templates.build(order())
        async with asyncio.timeout(60):
            while not warmer.booting:
                await asyncio.sleep(0)
        assert not templates.give_way()
        warmer.go.set()
        assert (await ended(templates)).state == "ready"

    async def test_one_that_fails_at_last_leaves_no_warm_snapshot(
        self, templates: Templates, warmer: Warmer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refused(_: list[Path]) -> None:
            raise OSError("Input/output error")

        monkeypatch.setattr(service, "sync", refused)
        await templates.build(order())
        assert (await ended(templates)).state == "failed"
        assert (warmer.made, warmer.forgotten) == (["tpl_one"], ["tpl_one"])

    async def test_keeps_reason_and_log_but_no_files(
        self, templates: Templates, oven: Oven, tmp_path: Path
    ) -> None:
        oven.failure = BuildFailed("packages: E: Unable to locate package nope")
        await templates.build(order())
        built = await ended(templates)
        assert built.state == "failed"
        assert "Unable to locate package nope" in (built.error or "")
        kept = {file.name for file in (tmp_path / "templates/tpl_one").iterdir()}
        assert kept == {"build.log", "template.json"}
        with pytest.raises(BuildFailed, match="nope"):
            templates.image("tpl_one")

    async def test_a_version_that_does_not_boot_has_failed(
        self, templates: Templates, warmer: Warmer, tmp_path: Path
    ) -> None:
        warmer.failure = BuildFailed("no agent answered")
        await templates.build(order())
        assert (await ended(templates)).state == "failed"
        assert not (tmp_path / "templates/tpl_one/base.erofs").exists()

    async def test_a_defect_of_ours_ends_the_build_too(
        self, templates: Templates, oven: Oven
    ) -> None:
        oven.failure = ZeroDivisionError("oops")
        await templates.build(order())
        assert "ZeroDivisionError: oops" in ((await ended(templates)).error or "")

    async def test_the_next_one_is_built(self, templates: Templates, oven: Oven) -> None:
        oven.failure = BuildFailed("no")
        await templates.build(order("tpl_a"))
        await ended(templates, "tpl_a")
        oven.failure = None
        await templates.build(order("tpl_b"))
        assert (await ended(templates, "tpl_b")).state == "ready"


class TestRestart:
    async def test_finds_what_was_built(
        self, templates: Templates, warmer: Warmer, tmp_path: Path
    ) -> None:
        await templates.build(order())
        await ended(templates)
        again = open_again(tmp_path, warmer)
        assert await again.reclaim() == 0
        assert again.all() == templates.all()
        assert (await anext(again.build_log("tpl_one", 1))).n == 2

    async def test_fails_what_was_cut_off_and_removes_its_files(
        self, oven: Oven, warmer: Warmer, tmp_path: Path
    ) -> None:
        folder = tmp_path / "templates/tpl_one"
        folder.mkdir(parents=True)
        (folder / "base.erofs").write_text("half")
        Record(order=order(), created_at=SystemClock().now()).keep(folder)
        (tmp_path / "work/tpl_one/root").mkdir(parents=True)
        (tmp_path / "templates/.gone-tpl_x/base.erofs").parent.mkdir()
        again = open_again(tmp_path, warmer)
        assert await again.reclaim() == 1
        built = await again.built("tpl_one")
        assert (built.state, built.error) == ("failed", "the platform ended during the build")
        assert not (folder / "base.erofs").exists()
        assert warmer.forgotten == ["tpl_one"]
        assert not (tmp_path / "work").exists()
        assert [f.name for f in (tmp_path / "templates").iterdir()] == ["tpl_one"]


class TestStop:
    async def test_builds_under_way_and_queued_have_failed(
        self, templates: Templates, oven: Oven
    ) -> None:
        oven.go.clear()
        await templates.build(order("tpl_a"))
        await templates.build(order("tpl_b"))
        await asyncio.sleep(0)
        await templates.stop()
        for name in ("tpl_a", "tpl_b"):
            assert "stopped" in ((await templates.built(name)).error or "")


class TestDrop:
    async def test_removes_files_and_warm_snapshots(
        self, templates: Templates, warmer: Warmer, tmp_path: Path
    ) -> None:
        await templates.build(order())
        await ended(templates)
        await templates.drop("tpl_one")
        assert list((tmp_path / "templates").iterdir()) == []
        assert warmer.forgotten == ["tpl_one"]
        with pytest.raises(NotFound):
            await templates.built("tpl_one")

    async def test_ends_a_build(self, templates: Templates, oven: Oven, tmp_path: Path) -> None:
        oven.go.clear()
        await templates.build(order())
        await asyncio.sleep(0)
        await templates.drop("tpl_one")
        assert list((tmp_path / "templates").iterdir()) == []

    async def test_who_follows_the_build_is_told_and_the_next_is_begun(
        self, templates: Templates, oven: Oven, tmp_path: Path
    ) -> None:
        oven.go.clear()
        for name in ("tpl_one", "tpl_two", "tpl_three"):
            await templates.build(order(name))
        logs = {name: templates.build_log(name, 0) for name in ("tpl_one", "tpl_two")}
        for log in logs.values():
            await anext(log)
        for name, log in logs.items():  # the one under way, then the one that has its turn next
            await templates.drop(name)
            said = [line.text async for line in log]
            assert said[-2] == "== failed"
            assert said[-1].startswith("it was deleted while it was being built (after")
        oven.go.set()
        assert (await ended(templates, "tpl_three")).state == "ready"
        assert [folder.name for folder in (tmp_path / "templates").iterdir()] == ["tpl_three"]

    async def test_an_order_that_comes_after_it_is_refused(self, templates: Templates) -> None:
        await templates.drop("tpl_one")
        with pytest.raises(Conflict, match="mine@1 was deleted before its build began"):
            await templates.build(order())

    async def test_what_is_not_there_is_no_error(self, templates: Templates) -> None:
        await templates.drop("tpl_none")


class TestDamage:
    async def test_a_record_that_cannot_be_read_is_left_alone_and_named(
        self, templates: Templates, warmer: Warmer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in ("tpl_one", "tpl_two"):
            await templates.build(order(name))
            await ended(templates, name)
        record = tmp_path / "templates/tpl_one/template.json"
        record.write_bytes(b"")  # as a power loss may leave it
        again = open_again(tmp_path, warmer)
        await again.reclaim()
        assert [image.version_id for image in again.all()] == ["tpl_two"]
        assert str(record) in caplog.text
        assert (record.parent / "base.erofs").exists()
        with pytest.raises(BuildFailed, match="cannot be read"):
            await again.build(order())
        await again.drop("tpl_one")
        assert not record.parent.exists()

    async def test_a_delete_that_was_cut_off_brings_nothing_back(
        self, templates: Templates, warmer: Warmer, tmp_path: Path
    ) -> None:
        await templates.build(order())
        await ended(templates)
        (tmp_path / "templates/tpl_one").rename(tmp_path / "templates/.gone-tpl_one")
        (tmp_path / "templates/.gone-tpl_one/base.erofs").unlink()
        again = open_again(tmp_path, warmer)
        assert again.all() == []
        await again.reclaim()
        await again.drop("tpl_one")  # as the api asks again
        assert list((tmp_path / "templates").iterdir()) == []

    async def test_a_log_is_told_up_to_where_it_is_damaged(
        self, templates: Templates, warmer: Warmer, tmp_path: Path
    ) -> None:
        await templates.build(order())
        await ended(templates)
        file = tmp_path / "templates/tpl_one/build.log"
        whole = file.read_bytes().splitlines()
        file.write_bytes(b"\n".join([whole[0], bytes(80), *whole[2:], b""]))
        again = open_again(tmp_path, warmer)
        assert [line.n async for line in again.build_log("tpl_one", 0)] == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
class TestFullDisk:
    @pytest.fixture
    def disk(self, templates: Templates, tmp_path: Path) -> Iterator[Path]:
        """The versions lie on a disk of their own."""
        folder = tmp_path / "templates"
        mount(folder, "size=4m", "-t", "tmpfs", "tmpfs")
        yield folder
        subprocess.run(["umount", "--lazy", folder], check=True)

    @pytest.mark.parametrize("failure", [None, BuildFailed("no"), OSError("No space left")])
    async def test_the_end_of_a_build_is_told_at_once_and_written_later(
        self,
        templates: Templates,
        oven: Oven,
        warmer: Warmer,
        disk: Path,
        tmp_path: Path,
        failure: Exception | None,
    ) -> None:
        oven.go.clear()
        oven.failure = failure
        await templates.build(order())
        following = asyncio.create_task(ended(templates))
        while not (disk / "tpl_one/base.erofs").exists():
            await asyncio.sleep(0.01)
        if failure is not None:  # else what it has made would be removed, and there would be room
            for name in ("base.erofs", "kernel", "initrd"):
                (disk / "tpl_one" / name).unlink()
        fill(disk)
        oven.go.set()
        state = "ready" if failure is None else "failed"
        assert (await following).state == state
        assert (await templates.built("tpl_one")).state == state
        said = [line.text async for line in templates.build_log("tpl_one", 0)]
        assert f"== {state}" in said
        assert json.loads((disk / "tpl_one/template.json").read_bytes())["state"] == "building"
        mount(disk, "remount,size=8m")
        async with asyncio.timeout(20):
            while templates._tasks:
                await asyncio.sleep(0.01)
        again = open_again(tmp_path, warmer)
        assert await again.reclaim() == 0
        assert (await again.built("tpl_one")).state == state
        assert [line.text async for line in again.build_log("tpl_one", 0)] == said

    async def test_a_build_that_cannot_be_begun_is_refused_and_leaves_nothing(
        self, templates: Templates, disk: Path
    ) -> None:
        fill(disk)
        for _ in range(2):
            with pytest.raises(
                Unavailable, match=r"cannot be written down on its host: .*No space"
            ):
                await templates.build(order())
        assert not (disk / "tpl_one").exists()
        mount(disk, "remount,size=8m")
        await templates.build(order())
        assert (await ended(templates)).state == "ready"

    async def test_a_start_fails_what_was_cut_off_and_comes_up(
        self, oven: Oven, warmer: Warmer, disk: Path, tmp_path: Path
    ) -> None:
        (disk / "tpl_one").mkdir()
        Record(order=order(), created_at=SystemClock().now()).keep(disk / "tpl_one")
        fill(disk)
        again = open_again(tmp_path, warmer)
        assert await again.reclaim() == 1
        assert (await again.built("tpl_one")).state == "failed"
        await again.stop()


def mount(folder: Path, options: str, *words: str) -> None:
    subprocess.run(["mount", "-o", options, *words, folder], check=True)


def fill(folder: Path) -> None:
    """Leave no block free."""
    (folder / ".other").write_bytes(b"x")
    now = os.statvfs(folder)
    mount(folder, f"remount,size={(now.f_blocks - now.f_bfree) * now.f_frsize}")


async def test_unknown_versions_are_not_found(templates: Templates) -> None:
    with pytest.raises(NotFound):
        await templates.built("tpl_none")
    with pytest.raises(NotFound):
        templates.image("tpl_none")
    with pytest.raises(NotFound):
        await anext(templates.build_log("tpl_none", 0))
