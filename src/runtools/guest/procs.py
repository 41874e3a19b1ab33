"""Processes as ``/proc`` shows them: who descends from whom, and signals for all of them.

Where there are no control groups, a process that leaves both its session and its parent escapes this;
the hello says so (``kill: session``).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

_ROUNDS: Final = 16
_TELLING_ROUNDS: Final = 8


def kill_session(leader: int) -> None:
    """Kill the leader, its session and all their descendants, until none is found any more."""
    for _ in range(_ROUNDS):
        found = family(leader)
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def tell(members: Callable[[], set[int]], number: int) -> None:
    """Send a signal to all of a set of processes, once to each; who is forked meanwhile is told, too."""
    told: set[int] = set()
    for _ in range(_TELLING_ROUNDS):
        found = members() - told
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        told |= found


def is_same(pid: int, born: int) -> bool:
    """Whether a process still runs, and is not another one under the same number."""
    fields = _stat(pid)
    return fields is not None and int(fields[19]) == born and fields[0] != "Z"


def born(pid: int) -> int:
    """When it started, in ticks since boot; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def count() -> int:
    """How many processes there are."""
    return sum(1 for name in os.listdir("/proc") if name.isdigit())


def family(leader: int) -> set[int]:
    """The leader, its session and all their descendants."""
    parents: dict[int, int] = {}
    family = set()
    for name in os.listdir("/proc"):
        fields = _stat(int(name)) if name.isdigit() else None
        if fields is None or fields[0] == "Z":
            continue
        parents[int(name)] = int(fields[1])
        if int(name) == leader or int(fields[3]) == leader:
            family.add(int(name))
    grew = True
    while grew:
        children = {pid for pid, parent in parents.items() if parent in family} - family
        family |= children
        grew = bool(children)
    return family


def _stat(pid: int) -> list[str] | None:
    """The fields of ``stat`` from the state on: state, ppid, pgrp, session …, 19: start time."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
