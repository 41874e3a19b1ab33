"""The end of all that runs as one VMM's user, whatever the VMM has become.

Nothing that a VMM can write is asked: who belongs to it is what the kernel says, by its groups and by the
user of every process. Groups alone would not do: they may have been out of use when it was started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from runtools.platform.host.drivers.qemu.groups import Groups
from runtools.platform.kit import process

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


def users_of(ranges: Sequence[range]) -> set[int]:
    """The users in some ranges as whom processes run."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                uid = entry.stat().st_uid
                if any(uid in users for users in ranges) and runs_as(int(entry.name), uid):
                    found.add(uid)
    return found


async def end_all(uid: int, groups: Groups) -> bool:
    """Kill everything of a user until nothing is left; False when something cannot be killed.

    Where it has groups, these are removed, which proves it.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + _SECONDS, 0.0005
    while not await asyncio.to_thread(_over, uid, groups):
        if loop.time() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


def _over(uid: int, groups: Groups) -> bool:
    if not groups.remove(uid):
        groups.kill(uid)
        if not groups.remove(uid):
            return False
    found = processes_of(uid)
    for pid in found:
        process.kill_if(pid, partial(runs_as, pid, uid))
    return not found
