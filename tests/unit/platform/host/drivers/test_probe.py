"""Choosing the accelerator; the guests themselves run in tests/vm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.host.drivers.qemu import probe, probe_guest, trial
from runtools.platform.host.drivers.qemu.probe import Prober, device_groups
from runtools.platform.kit.process import Completed

SOURCE = Path(probe_guest.__file__).with_suffix(".S")


@pytest.fixture
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device that others may open, and QEMU 10."""
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o666)
    monkeypatch.setattr(probe, "KVM", device)
    monkeypatch.setattr(probe, "_version", version)
    return device


async def version() -> str:
    return "10.0.2 (Test)"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What guests do: None passes. Counts itself."""
    outcome: dict[str, str | None] = {"guest": None, "kernel": None, "times": ""}

    async def tiny_guest(accelerator: str) -> str | None:
        outcome["times"] = f"{outcome['times']}g"
        return outcome["guest"]

    async def kernel(accelerator: str, image: Path, arguments: str) -> str | None:
        outcome["times"] = f"{outcome['times']}k"
        return outcome["kernel"]

    monkeypatch.setattr(trial, "tiny_guest", tiny_guest)
    monkeypatch.setattr(trial, "kernel", kernel)
    return outcome


class TestChoose:
    async def test_kvm_where_its_guests_pass(self, tmp_path, kvm, tried):
        choice = await Prober(tmp_path, kernel=lambda: tmp_path).choose()
        assert choice.capabilities.isolation == "hardware"
        assert tried["times"] == "gk"

    async def test_emulation_where_there_is_no_device(self, tmp_path, kvm, tried):
        kvm.unlink()
        choice = await Prober(tmp_path).choose()
        assert (choice.accelerator, choice.capabilities.isolation) == ("tcg", "emulated")
        assert "no /dev/kvm" in choice.reason

    @pytest.mark.parametrize("part", ["guest", "kernel"])
    async def test_emulation_where_a_guest_fails_and_says_why(self, tmp_path, kvm, tried, part):
        tried[part] = "it hangs at xrstor"
        choice = await Prober(tmp_path, kernel=lambda: tmp_path).choose()
        assert choice.accelerator == "tcg"
        assert "it hangs at xrstor" in choice.reason

    async def test_emulation_where_root_alone_may_open_it(self, tmp_path, kvm, tried):
        kvm.chmod(0o600)
        assert "root" in (await Prober(tmp_path).choose()).reason

    async def test_what_was_found_is_kept_for_this_boot(self, tmp_path, kvm, tried):
        await Prober(tmp_path).choose()
        await Prober(tmp_path).choose()
        assert tried["times"] == "g"

    async def test_a_kernel_that_comes_later_is_tried(self, tmp_path, kvm, tried):
        await Prober(tmp_path).choose()
        await Prober(tmp_path, kernel=lambda: tmp_path).choose()
        await Prober(tmp_path, kernel=lambda: tmp_path).choose()
        assert tried["times"] == "ggk"

    async def test_another_qemu_is_tried_anew(self, tmp_path, kvm, tried, monkeypatch):
        await Prober(tmp_path).choose()

        async def newer() -> str:
            return "11.0.0"

        monkeypatch.setattr(probe, "_version", newer)
        await Prober(tmp_path).choose()
        assert tried["times"] == "gg"

    async def test_a_damaged_note_is_no_note(self, tmp_path, kvm, tried):
        (tmp_path / "accelerator.json").write_text("{")
        assert (await Prober(tmp_path).choose()).accelerator == "kvm"

    @pytest.mark.parametrize("setting", ["kvm", "tcg"])
    async def test_a_setting_is_believed(self, tmp_path, kvm, tried, setting):
        choice = await Prober(tmp_path, setting).choose()
        assert choice.accelerator == setting
        assert tried["times"] == ""


class TestVersion:
    @pytest.fixture
    def says(self, monkeypatch: pytest.MonkeyPatch):
        def say(text: str) -> None:
            async def run(argv: list[str]) -> Completed:
                return Completed(0, text.encode(), b"")

            monkeypatch.setattr(probe.process, "run", run)
            monkeypatch.setattr(probe.shutil, "which", lambda *_, **__: "/usr/bin/qemu")

        return say

    async def test_is_told_whole(self, says):
        says("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds)\nCopyright")
        assert await probe._version() == "10.0.2 (Debian 1:10.0.2+ds)"

    async def test_that_is_too_old_is_refused(self, says):
        says("QEMU emulator version 7.2.19 (Debian 1:7.2)\n")
        with pytest.raises(VmmFailed, match=r"too old.*backports"):
            await probe._version()

    async def test_of_nothing_is_refused(self, monkeypatch):
        monkeypatch.setattr(probe.shutil, "which", lambda *_, **__: None)
        with pytest.raises(VmmFailed, match="not installed"):
            await probe._version()


def test_a_device_is_opened_by_its_group(tmp_path):
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o660)
    assert device_groups(device) == [device.stat().st_gid]
    device.chmod(0o666)
    assert device_groups(device) == []


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="needs binutils")
def test_the_guest_is_what_its_source_says(tmp_path):
    made, linked = tmp_path / "p.o", tmp_path / "p.bin"
    subprocess.run(["as", "--64", SOURCE, "-o", made], check=True)
    words = ["ld", "-e", "0", "-Ttext=0", "--oformat", "binary", made, "-o", linked]
    subprocess.run(words, check=True)
    assert linked.read_bytes() == probe_guest.firmware()
