"""Saved devices on their way into a capture: the VMM wrote them, and may have been taken over."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtools.errors import CapacityExhausted
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.host.drivers.qemu import saving
from runtools.platform.host.drivers.qemu.captures import Capture
from runtools.platform.host.drivers.qemu.driver import QemuDriver
from runtools.platform.host.drivers.qemu.groups import Groups, Mounted
from runtools.platform.host.drivers.qemu.place import Run
from runtools.platform.host.drivers.qemu.probe import Prober


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    (tmp_path / "into").mkdir()
    made = Capture(tmp_path / "into")
    made.begin()
    return made


class TestDevices:
    async def test_are_copied(self, machine, place, capture):
        place.fresh_state.write_bytes(b"devices" * 50_000)
        await saving.copy_devices(machine, lambda: place.open("state.new"), capture)
        assert capture.state.read_bytes() == b"devices" * 50_000

    @pytest.mark.parametrize("size", [(64 << 20) + 1, 1 << 40])
    async def test_that_are_endless_are_refused(self, machine, place, capture, size):
        with place.fresh_state.open("wb") as file:
            file.truncate(size)
        place.fresh_state.rename(place.state)
        with pytest.raises(VmmFailed, match="larger than the devices of any machine"):
            await saving.copy_devices(machine, place.open_state, capture)
        assert not capture.state.exists()

    async def test_that_are_a_link_are_refused(self, machine, place, capture, tmp_path):
        (tmp_path / "secret").write_text("secret")
        place.fresh_state.symlink_to(tmp_path / "secret")
        with pytest.raises(VmmFailed, match="were not copied"):
            await saving.copy_devices(machine, lambda: place.open("state.new"), capture)

    async def test_of_a_paused_machine_that_are_endless_fail_its_capture(
        self, machine, place, tmp_path
    ):
        """The driver's own way there: its memory is copied, its devices are refused."""
        driver = QemuDriver(Prober(tmp_path), Groups("test", Mounted(1, {})))
        place.note_run(Run({}, private=False))
        place.ram.write_bytes(b"ram")
        with place.fresh_state.open("wb") as file:
            file.truncate(1 << 40)
        place.keep_state({})
        into = tmp_path / "capture"
        into.mkdir()
        with pytest.raises(VmmFailed, match="larger than the devices of any machine"):
            await driver.capture(machine, into, _nothing)
        with pytest.raises(VmmFailed, match="no complete capture"):
            Capture(into).check({})


class TestRam:
    """Memory of its own, of a machine that runs."""

    async def test_of_which_little_is_in_use_is_copied_once(self, machine, place, tmp_path):
        place.ram.write_bytes(b"before")
        ram = saving.Ram(machine, 0, private=False)
        with (tmp_path / "copy").open("w+b") as target:
            await ram.before(target.fileno())
            assert (tmp_path / "copy").stat().st_size == 0
            place.ram.write_bytes(b"since")
            await ram.still(target.fileno())
        assert (tmp_path / "copy").read_bytes() == b"since"

    async def test_of_which_much_is_in_use_is_copied_while_it_runs_too(
        self, machine, place, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(saving, "COPIED_ONCE", 8192)
        place.ram.write_bytes(b"r" * 8192 + b"before")
        ram = saving.Ram(machine, 0, private=False)
        with (tmp_path / "copy").open("w+b") as target:
            await ram.before(target.fileno())
            assert (tmp_path / "copy").read_bytes() == b"r" * 8192 + b"before"
            place.ram.write_bytes(b"r" * 8192 + b"since.")
            await ram.still(target.fileno())
        assert (tmp_path / "copy").read_bytes() == b"r" * 8192 + b"since."


async def test_a_capture_leaves_the_headroom_free(machine, place, tmp_path):
    driver = QemuDriver(Prober(tmp_path), Groups("test", Mounted(1, {})))
    place.note_run(Run({}, private=False))
    place.ram.write_bytes(b"ram")
    place.fresh_state.write_bytes(b"devices")
    place.keep_state({})
    into = tmp_path / "capture"
    into.mkdir()
    with pytest.raises(CapacityExhausted, match="no room to go on copying"):
        await driver.capture(machine, into, _nothing, keep_free=1 << 60)
    with pytest.raises(VmmFailed, match="no complete capture"):
        Capture(into).check({})


async def _nothing() -> None:
    pass
