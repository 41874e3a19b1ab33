"""The holder's script, with a shell standing in for the VMM."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtools.platform.core.ports.driver import Machine, Slot
from runtools.platform.host.drivers.qemu import holder
from runtools.platform.host.drivers.qemu.place import Pids, Place

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
        script = holder.chain("m", 0, (), str(place.box), [])
        command = [*script[: script.index("setpriv")], "sh", "-c", vmm]
        done = subprocess.run(
            command,
            check=False,
            cwd=place.held,
            timeout=_SECONDS,
            capture_output=True,
            input=b"go\n",
            env={"CONSOLE": str(place.console_pipe), "PATH": "/usr/bin:/bin"},
        )
        assert done.stdout + done.stderr == b""
        return place

    return run


def test_nothing_is_started_when_nobody_says_so(place):
    """The host died before the holder was in its groups."""
    script = holder.chain("m", 0, (), str(place.box), [])
    command = [*script[: script.index("setpriv")], "touch", "here"]
    done = subprocess.run(
        command, check=False, cwd=place.held, timeout=_SECONDS, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1
    assert not (place.box / "here").exists()
    assert place.pids() is None


@pytest.mark.parametrize(
    ("vmm", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -6 $$", 134)]
)
def test_how_it_ended_is_written_down(hold, vmm, status):
    assert hold(vmm).exit_status() == status


def test_who_it_is_is_written_down(hold):
    place = hold("echo $$ $PPID > me")
    assert place.pids() == Pids(*map(int, (place.box / "me").read_text().split()))


def test_its_messages_are_kept(hold):
    assert hold("echo no such device >&2; exit 1").messages() == ["no such device"]


def test_of_endless_messages_the_last_are_kept(hold):
    """One endless line, too: no holder ever has in memory what a VMM says."""
    for filler in ("yes no such device", "tr '\\0' x </dev/zero"):
        place = hold(f"{filler} | head -c 8500000 >&2; echo; echo the end >&2")
        kept = sum(path.stat().st_size for path in place.held.glob("messages*") if path.is_file())
        assert 16 << 10 < kept < 1 << 20
        assert place.messages()[-1].endswith("the end")


def test_its_console_is_kept(hold):
    assert hold("printf 'one\ntwo\n' > $CONSOLE").console(10) == ["one", "two"]


def test_of_an_endless_console_the_end_is_kept(hold):
    """Written in one piece and in crumbs: the bound holds for both, and the last line is there."""
    place = hold("{ yes 0123456789abcdef | head -c 8500000; echo the end; } > $CONSOLE")
    kept = sum(path.stat().st_size for path in place.held.glob("console*") if path.is_file())
    assert 16 << 10 < kept < 1 << 20
    assert place.console(1) == ["the end"]


def test_a_vmm_that_never_opens_its_console_ends_too(hold):
    assert hold("true").console(1) == []


def test_it_has_neither_the_lock_nor_the_hosts_pipe(hold, place):
    """The lock is the holder's standard output; what the VMM has is its console and its messages."""
    place = hold("ls -l /proc/$$/fd > open; true")
    lines = (place.box / "open").read_text().splitlines()
    opened = {Path(line.partition(" -> ")[2]).name for line in lines if " -> " in line}
    opened -= {"open"}  # dash's own doing, for the line above
    assert {"console.pipe", "messages.pipe"} <= opened <= {"null", "console.pipe", "messages.pipe"}


def test_a_vmm_has_no_privilege():
    line = " ".join(holder.unprivileged(70_000))
    for part in (
        *("--reuid=70000", "--regid=70000", "--clear-groups", "--no-new-privs"),
        *("--bounding-set=-all", "--inh-caps=-all", "--pdeathsig=KILL"),
    ):
        assert part in line


def test_it_has_the_groups_that_it_needs():
    line = " ".join(holder.unprivileged(70_000, [107]))
    assert "--groups=107" in line
    assert "--clear-groups" not in line
