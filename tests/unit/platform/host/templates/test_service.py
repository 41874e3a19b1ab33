"""Builds as jobs: what is kept of one that passed, failed, was cut off or is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtools.errors import BuildFailed, InvalidRequest, NotFound
from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.platform.core.ports.network import Network
from runtools.platform.host.templates import service
from runtools.platform.host.templates.build import Workshop
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

    async def make(
        self, image: Image, vcpus: int, memory_mb: int, say: Callable[[str], None]
    ) -> Path:
        say("booting")
        if self.failure is not None:
            raise self.failure
        self.made.append(image.version_id)
        self.sizes.append((vcpus, memory_mb))
        return image.folder

    async def forget(self, version_id: str) -> None:
        self.forgotten.append(version_id)


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
    async with asyncio.timeout(10):
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
        await templates.stop()

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

    async def test_what_is_not_there_is_no_error(self, templates: Templates) -> None:
        await templates.drop("tpl_none")


async def test_unknown_versions_are_not_found(templates: Templates) -> None:
    with pytest.raises(NotFound):
        await templates.built("tpl_none")
    with pytest.raises(NotFound):
        templates.image("tpl_none")
    with pytest.raises(NotFound):
        await anext(templates.build_log("tpl_none", 0))
