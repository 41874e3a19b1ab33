"""The holder's script, with a shell standing in for the VMM."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtools.platform.core.ports.driver import Machine, Slot
from runtools.platform.host.drivers.qemu import holder, launch
from runtools.platform.host.drivers.qemu.place import Place

_SECONDS = 30


@pytest.fixture
def place(tmp_path: Path) -> Place:
    files = {name: tmp_path / name for name in ("base", "kernel", "initrd", "overlay")}
    slot = Slot("", "", 0)
    made = Place(
        Machine("m", tmp_path, 1, 512, **files, uid=os.getuid(), slot=slot, boot_token="t")
    )
    made.prepare()
    return made


@pytest.fixture
def hold(place: Place) -> Callable[[str], Place]:
    """Runs a holder to its end. The VMM writes its console where QEMU does, its messages to stderr."""

    def run(vmm: str) -> Place:
        command = ["sh", "-c", vmm]
        script = holder.chain("m", 0, (), command)[-len(command) - 4 :]
        assert script[0] == "sh"
        done = subprocess.run(
            script, check=False, cwd=place.box, timeout=_SECONDS, capture_output=True
        )
        assert done.stdout + done.stderr == b""
        return place

    return run


@pytest.mark.parametrize(
    ("vmm", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -6 $$", 134)]
)
def test_how_it_ended_is_written_down(hold, vmm, status):
    assert hold(vmm).exit_status() == status


def test_who_it_is_is_written_down(hold):
    place = hold("cut -d' ' -f22 /proc/$$/stat > started; echo $$ > me")
    pids = place.pids()
    assert pids is not None
    assert pids.vmm == int((place.box / "me").read_text())
    assert pids.started == int((place.box / "started").read_text())
    assert launch.started(pids.vmm) is None


def test_its_messages_are_kept(hold):
    assert hold("echo no such device >&2; exit 1").messages() == ["no such device"]


def test_of_endless_messages_the_last_are_kept(hold):
    place = hold("i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo message $i; done >&2")
    said = place.messages()
    assert said[-1] == "message 1000"
    assert 200 <= len(said) <= 400


def test_its_console_is_kept(hold):
    assert hold("printf 'one\ntwo\n' > console.pipe").console(10) == ["one", "two"]


def test_of_an_endless_console_the_end_is_kept(hold):
    """Written in one piece and in crumbs: the bound holds for both, and the last line is there."""
    place = hold("{ yes 0123456789abcdef | head -c 8500000; echo the end; } > console.pipe")
    kept = sum(path.stat().st_size for path in place.box.glob("console*") if path.is_file())
    assert 16 << 10 < kept < 1 << 20
    assert place.console(1) == ["the end"]


def test_a_vmm_that_never_opens_its_console_ends_too(hold):
    assert hold("true").console(1) == []


def test_it_may_be_killed_first_when_memory_runs_out(hold):
    place = hold("cat /proc/self/oom_score_adj > score")
    assert (place.box / "score").read_text().strip() == "500"


def test_a_vmm_has_no_privilege():
    line = " ".join(holder.unprivileged(70_000))
    for part in (
        *("unshare --net", "--reuid=70000", "--regid=70000", "--clear-groups", "--no-new-privs"),
        *("--bounding-set=-all", "--inh-caps=-all"),
    ):
        assert part in line


def test_it_has_the_groups_that_it_needs():
    line = " ".join(holder.unprivileged(70_000, [107]))
    assert "--groups=107" in line
    assert "--clear-groups" not in line
