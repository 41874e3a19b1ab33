"""What is the local driver's own: freezing whole trees, disks in overlay files, scripted builds."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtools.errors import BuildFailed, NotFound
from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.platform.kit import process
from runtools.testing import local_disk as disk
from runtools.testing.contracts.driver_rig import DriverRig
from runtools.testing.local_freeze import freeze, members, stopped, thaw
from runtools.testing.local_rig import first_process, make_local_rig
from runtools.testing.local_template import LocalTemplates


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DriverRig]:
    rig = await make_local_rig(tmp_path)
    yield rig
    await rig.close()


@pytest.fixture
async def restless() -> AsyncIterator[int]:
    """A process that starts another one all the time."""
    line = "while :; do (/bin/true; /bin/true) & wait; done"
    made = await asyncio.create_subprocess_exec("bash", "-c", line, start_new_session=True)
    yield made.pid
    os.killpg(made.pid, signal.SIGKILL)
    await made.wait()


class TestFreeze:
    async def test_nothing_of_a_restless_tree_moves(self, restless: int) -> None:
        for _ in range(20):
            await freeze(os.getpid())
            still = members(os.getpid())
            await asyncio.sleep(0.02)  # long enough for what still moves to start another one
            assert members(os.getpid()) == still == stopped(still)
            thaw(os.getpid())
            assert restless in still

    async def test_who_had_stopped_before_stays_stopped(self, rig: DriverRig) -> None:
        machine = await rig.live()
        line = "sleep 1000 >/dev/null 2>&1 & kill -STOP $!"
        stopped_now = 'until [ "$(ps -o stat= -p $!)" = T ]; do :; done; echo $!'
        pid = await rig.sh(machine, f"{line}; {stopped_now}")
        await rig.driver.suspend(machine)
        await rig.driver.resume(machine)
        assert await rig.sh(machine, f"ps -o stat= -p {pid}") == "T"
        await rig.sh(machine, f"kill -CONT {pid}; kill {pid}")


class TestHolder:
    @pytest.mark.parametrize("state", ["live", "suspended"])
    async def test_a_removed_folder_takes_what_ran_in_it(self, rig: DriverRig, state: str) -> None:
        machine = await rig.live()
        first = first_process(machine)
        if state == "suspended":
            await rig.driver.suspend(machine)
        shutil.rmtree(machine.folder, ignore_errors=True)
        await rig.soon(process.wait_pid_gone(first))
        shutil.rmtree(machine.folder, ignore_errors=True)

    async def test_no_file_outgrows_the_disk(self, rig: DriverRig) -> None:
        machine = await rig.live()
        said = await rig.sh(
            machine, "head -c 600M /dev/zero > /root/big; echo $?; stat -c %s /root/big"
        )
        assert said.split()[-1] == str(512 << 20)


class TestDisk:
    @pytest.fixture
    def overlay(self, tmp_path: Path) -> Path:
        overlay = tmp_path / "overlay.img"
        with overlay.open("wb") as file:
            file.truncate(64 << 20)
        return overlay

    async def test_a_tree_comes_back_as_it_was(self, tmp_path: Path, overlay: Path) -> None:
        tree = tmp_path / "tree"
        await disk.unpack(overlay, tree)
        (tree / "root/secret").write_text("s")
        (tree / "root/secret").chmod(0)
        (tree / "root/link").symlink_to("/etc/passwd")
        with (tree / "root/hole").open("wb") as file:
            file.truncate(32 << 20)
        (tree / "run/gone").write_text("x")
        await disk.pack(tree, overlay)
        assert (overlay.stat().st_size, disk.is_packed(overlay)) == (64 << 20, True)
        assert overlay.stat().st_blocks * 512 < 1 << 20
        await disk.unpack(overlay, tmp_path / "again")
        again = tmp_path / "again/root"
        assert (again / "secret").stat().st_mode & 0o777 == 0
        assert str((again / "link").readlink()) == "/etc/passwd"
        assert (again / "hole").stat().st_blocks == 0
        assert not (tmp_path / "again/run/gone").exists()

    async def test_an_unused_disk_is_a_fresh_tree(self, tmp_path: Path, overlay: Path) -> None:
        await disk.unpack(overlay, tmp_path / "tree")
        assert (tmp_path / "tree/workspace").is_dir()
        assert not disk.is_packed(overlay)


class TestTemplates:
    def order(self, **changes: object) -> BuildOrder:
        fields = {"version_id": "tpl_1", "slug": "mine", "version": 1, "recipe": "base-debian"}
        return BuildOrder.model_validate({**fields, "apt": [], "run": None, **changes})

    async def built(self, templates: LocalTemplates, order: BuildOrder) -> tuple[Built, str]:
        await templates.build(order)
        lines = [line async for line in templates.build_log(order.version_id, 0)]
        return await templates.built(order.version_id), "\n".join(line.text for line in lines)

    async def test_a_build_runs_its_script(self, tmp_path: Path) -> None:
        templates = LocalTemplates(tmp_path)
        built, log = await self.built(templates, self.order(apt=["jq"], run="echo hi from $HOME"))
        assert built.state == "ready"
        assert "Get: jq" in log
        assert "hi from" in log
        assert [image.slug for image in LocalTemplates(tmp_path).all()] == ["mine"]

    @pytest.mark.parametrize(
        ("wish", "said"),
        [
            ({"run": "echo oh no >&2; exit 3"}, "oh no"),
            ({"apt": ["no-such-thing"]}, "no-such-thing"),
        ],
    )
    async def test_it_fails_on_demand(
        self, tmp_path: Path, wish: dict[str, object], said: str
    ) -> None:
        templates = LocalTemplates(tmp_path)
        built, log = await self.built(templates, self.order(**wish))
        assert built.state == "failed"
        assert said in str(built.error)
        assert said in log
        with pytest.raises(BuildFailed):
            templates.image("tpl_1")

    async def test_a_build_that_was_cut_off_has_failed(self, tmp_path: Path) -> None:
        templates = LocalTemplates(tmp_path, pace=60)
        await templates.build(self.order())
        await templates.stop()
        assert (await LocalTemplates(tmp_path).built("tpl_1")).state == "failed"

    async def test_what_was_dropped_is_gone(self, tmp_path: Path) -> None:
        templates = LocalTemplates(tmp_path)
        await self.built(templates, self.order())
        await templates.drop("tpl_1")
        await templates.drop("tpl_1")
        with pytest.raises(NotFound):
            await templates.built("tpl_1")
