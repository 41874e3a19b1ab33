"""A hostile guest at work, and everybody else: the host answers, neighbours answer, nothing grows for ever.

How fast they answer meanwhile is measured by the section `hostile` of `./dev bench`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.attacks import ATTACKS
from runtools.testing.real_platform import Platform, eventually

pytestmark = pytest.mark.vm

_MB = 1 << 20
_ROUNDS = 5
_DISK_MB = 1024
_PATIENCE_SECONDS = 120.0
_ANSWER_MS = 60_000


@pytest.fixture(scope="module")
def neighbour(platform: Platform) -> Iterator[Sandbox]:
    with platform.rt.sandboxes.create() as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", ATTACKS)
def test_a_guest_that_fills_everything_hurts_only_itself(platform, neighbour, name):
    logs = size_of(platform.home / "logs")
    attacker = platform.rt.sandboxes.create(disk_mb=_DISK_MB)
    folder = platform.home / "host" / "sandboxes" / attacker.id
    try:
        process = attacker.processes.start(ATTACKS[name])
        vmm = platform.vmm(attacker.id)
        before = ticks(vmm)
        eventually(lambda: ticks(vmm) - before > 100)  # a second's worth of work
        for n in range(_ROUNDS):
            told = neighbour.exec(f"echo here {n}", timeout_ms=_ANSWER_MS)
            assert told.stdout == f"here {n}\n"
            assert neighbour.refresh().state == "running"
            assert attacker.id in {one.id for one in platform.rt.sandboxes.list()}
        with platform.rt.sandboxes.create() as other:  # others still come into being
            assert other.exec("echo new").stdout == "new\n"
        eventually(lambda: ticks(vmm) - before > 300)
        (life,) = folder.glob("*/vmm")
        assert on_disk(life.parent / "overlay.img") <= (_DISK_MB + 16) * _MB
        assert sum(on_disk(one) for one in (life / "held").iterdir()) < 2 * _MB
        assert size_of(platform.home / "logs") - logs < _MB
        assert process.refresh().view.state == "running", "the attack did not last"
        process.kill()  # its owner ends it, whatever it fills
        assert process.wait(timeout=_PATIENCE_SECONDS).signal == signal.SIGKILL
    finally:
        attacker.destroy()
    eventually(lambda: not list(folder.glob("*/vmm")))


def ticks(pid: int) -> int:
    """Processor time of a process, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def on_disk(file: Path) -> int:
    return file.stat().st_blocks * 512


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
