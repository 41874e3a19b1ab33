"""What really is so: folders and processes of a home, and the reports that a follower gets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Literal

from runtools.errors import HostUnavailable
from runtools.platform.core.ports.host import Host, Observed
from runtools.testing.crash.model import Model

Driver = Literal["local", "qemu"]
# By what the process that stands for a machine is known, and in which states there is one.
_PROCESS: dict[Driver, tuple[bytes, set[str]]] = {
    "local": (b"local_holder.py", {"running", "paused"}),  # frozen processes are still processes
    "qemu": (b"qemu-system", {"running"}),
}
# The program is among these: an interpreter and its flags may come first.
_PROGRAM_WORDS: dict[Driver, int] = {"local": 4, "qemu": 1}
SETTLE_SECONDS = 60.0


def machines(home: Path, driver: Driver) -> list[tuple[int, str]]:
    """The machine processes of this home: each one's pid, and the sandbox it belongs to.

    A local one is known by a folder of the home that it was given; a VMM, which sees none of them, by
    the sandbox in its name and by its user, who owns that sandbox's machine.
    """
    mark = _PROCESS[driver][0]
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if any(mark in word for word in words[: _PROGRAM_WORDS[driver]]):
                    belongs = (
                        _local(home, words) if driver == "local" else _vmm(home, folder, words)
                    )
                    if belongs is not None:
                        found.append((int(folder.name), belongs))
    return found


def _local(home: Path, words: list[bytes]) -> str | None:
    top = bytes(home / "host" / "sandboxes") + b"/"
    return next((w.partition(top)[2].partition(b"/")[0].decode() for w in words if top in w), None)


def _vmm(home: Path, folder: Path, words: list[bytes]) -> str | None:
    user = folder.stat().st_uid
    for box in (home / "host" / "sandboxes").glob("*/*/vmm/box"):
        sandbox = box.parents[2].name
        if box.lstat().st_uid == user and any(sandbox.encode() in word for word in words):
            return sandbox
    return None


def kill_machines(home: Path, driver: Driver) -> None:
    """End what a failure left running."""
    for pid, _ in machines(home, driver):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _count(home: Path, driver: Driver) -> Counter[str]:
    return Counter(box for _, box in machines(home, driver))


async def processes_fit(home: Path, driver: Driver, model: Model) -> None:
    """One machine for every sandbox that has one, no orphan, nothing owned twice."""
    states = _PROCESS[driver][1]
    wanted = Counter(box.id for box in model.living() if box.state in states)
    await _until(
        lambda: _count(home, driver) == wanted,
        lambda: f"machines are {_count(home, driver)}, wanted are {wanted}",
    )


async def folders_fit(home: Path, model: Model) -> None:
    """One folder for every machine, nothing half-made."""
    wanted = {box.id: int(box.state != "stopped" or box.keeps_disk) for box in model.boxes.values()}
    await _until(
        lambda: _lives(home, wanted) == wanted,
        lambda: f"folders are {_lives(home, wanted)}, wanted are {wanted}",
    )
    kept = {item.name for item in (home / "host" / "snapshots").iterdir()}
    assert kept == model.snapshots(), f"snapshots are {kept}, wanted are {model.snapshots()}"
    assert list((home / "host" / "captures").iterdir()) == []


def _lives(home: Path, known: Collection[str]) -> dict[str, int]:
    """How many machine folders each sandbox has; of unknown ones (of before) those that have any."""
    lives = {
        box.name: sum(item.name.isdigit() for item in box.iterdir())
        for box in (home / "host" / "sandboxes").iterdir()
    }
    return {box: count for box, count in lives.items() if count or box in known}


async def _until(holds: Callable[[], bool], what: Callable[[], str]) -> None:
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while not holds():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(what()) from None


class Follower:
    """Follows the reports over every restart, and holds what was last said of each sandbox."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._at = (0, 0)
        self._news = asyncio.Event()
        self.latest: dict[str, Observed] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow while the body runs."""
        task = asyncio.create_task(self._follow())
        try:
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def agrees(self, seen: Observed) -> None:
        """Wait until it has been told of what somebody else saw; it must be the same."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while not self._has(seen):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"the reports never told of {seen}") from None
        assert self.latest[seen.sandbox_id] == seen

    def _has(self, seen: Observed) -> bool:
        told = self.latest.get(seen.sandbox_id)
        return told is not None and (told.epoch, told.seq) >= (seen.epoch, seen.seq)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(HostUnavailable):
                async for report in self._host.reports(*self._at):
                    place = (report.epoch, report.seq)
                    assert place > self._at, f"{report} came after {self._at}"
                    self._at = place
                    self.latest[report.sandbox_id] = report
                    self._news.set()
            await asyncio.sleep(0.02)
