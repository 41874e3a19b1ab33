"""The end of all that runs as one VMM's user, whatever the VMM has become.

Nothing that a VMM can write is asked: who belongs to it is what the kernel says, by its groups or, where
there are none, by the user of every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from runtools.platform.host.drivers.qemu.groups import Groups

_SECONDS = 30.0
_THREADS = 17  # after the name in brackets: see proc(5), less three


def processes_of(uid: int) -> list[int]:
    """Every process that is this user."""
    return [
        int(entry.name)
        for entry in os.scandir("/proc")
        if entry.name.isdigit() and runs_as(int(entry.name), uid)
    ]


def runs_as(pid: int, uid: int) -> bool:
    """Whether there is a process with this number, not just its remains, that is this user."""
    try:
        folder = Path(f"/proc/{pid}")
        if folder.stat().st_uid != uid:
            return False
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The first thread of a process can end before the others, which run on behind its remains.
    return fields[0] not in {b"Z", b"X"} or int(fields[_THREADS]) > 1


async def end_all(uid: int, groups: Groups, *, grouped: bool) -> bool:
    """Kill everything of a user until nothing is left; False when something cannot be killed.

    ``grouped``: whether it was started in groups. Then these are removed, which proves it.
    """
    over = _over_in_groups if grouped else _over
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + _SECONDS, 0.0005
    while not await asyncio.to_thread(over, uid, groups):
        if loop.time() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


def _over_in_groups(uid: int, groups: Groups) -> bool:
    if groups.remove(uid):
        return True
    groups.kill(uid)
    return groups.remove(uid)


def _over(uid: int, _: Groups) -> bool:
    found = processes_of(uid)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not found
