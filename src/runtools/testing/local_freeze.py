"""Freezing and thawing a whole process tree by signals: what pause means without a VMM.

Every thread of every process below (and without) a root is stopped before `freeze` returns; the few
that had stopped themselves before stay stopped when the tree is thawed. It works for an ordinary user
too, which the freezer of the control groups does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

_DEADLINE_SECONDS = 10.0
# After so many looks at a tree that will not stand still it is let go for a moment: a process that
# waits for its vfork child to exec cannot be stopped before that child was let run.
_LOOKS = 40


class StillMoving(Exception):
    """Processes of the tree would not stop."""


def members(root: int) -> set[int]:
    """The pids of all processes below the root, itself not included."""
    children: dict[int, list[int]] = {}
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            parent = int(stat.rpartition(b")")[2].split(maxsplit=2)[1])
            children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo.extend(below)
    return found


def stopped(pids: Iterable[int]) -> set[int]:
    """Those of which every thread stands (or is dead)."""
    return {pid for pid in pids if _stands(pid)}


def _stands(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with os.scandir(f"/proc/{pid}/task") as threads:
            states = [Path(thread.path, "stat").read_bytes() for thread in threads]
        return all(s.rpartition(b")")[2].split(maxsplit=1)[0] in b"TtZX" for s in states)
    return not Path(f"/proc/{pid}").exists()


def _send(pids: Iterable[int], what: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


async def freeze(root: int, leave: Collection[int] = ()) -> None:
    """Stop everything below the root.

    A look that finds only processes which were told to stop before it, and which all stand, is the
    proof: none of them can have started another one since.

    Raises:
        StillMoving: it could not be done in ten seconds; the tree runs on.
    """
    give_up = time.monotonic() + _DEADLINE_SECONDS
    told: set[int] = set()
    looks = 0
    while True:
        found = members(root)
        if found <= told and len(stopped(found)) == len(found):
            return
        if time.monotonic() > give_up:
            thaw(root, leave)
            raise StillMoving(f"{len(found - stopped(found))} processes below {root} do not stop")
        looks += 1
        if looks % _LOOKS == 0:
            thaw(root, leave)
            told.clear()
        else:
            _send(found - told, signal.SIGSTOP)
            told |= found
        await asyncio.sleep(0.0005 if looks < 8 else 0.005)


def thaw(root: int, leave: Collection[int] = ()) -> None:
    """Let everything below the root go on, but those that had stopped by themselves before."""
    _send(members(root) - set(leave), signal.SIGCONT)
