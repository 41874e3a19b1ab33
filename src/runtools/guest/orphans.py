"""Commands that outlived the agent that started them: their deadline still holds.

How such a command ends is seen by nobody, so a repeat of its id is answered with ``outcome_unknown``,
which says whether something of it still runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtools.guest import procs
from runtools.guest.execs import Execs
from runtools.guest.groups import send
from runtools.guest.journal import Journal

_LOOK_SECONDS: Final = 0.5


def watch(execs: Execs, log: Journal, op: str, note: Mapping[str, Any]) -> None:
    """Kill what is left of a command at its deadline, and note whether it runs."""
    group = execs.find_group(str(note["group"])) if "group" in note else None
    pid = int(note.get("pid", 0))
    if group is not None:
        runs, kill = group.is_populated, group.kill
    elif pid and procs.is_same(pid, int(note.get("born", 0))):
        runs = lambda: procs.is_same(pid, int(note["born"]))  # noqa: E731
        kill = lambda: procs.kill_session(pid)  # noqa: E731
    else:
        log.tell(op, {"running": False})
        return
    log.tell(op, {"running": True})
    deadline = float(note["deadline"])
    arguments = (log, op, deadline, runs, kill)
    threading.Thread(target=_until, args=arguments, daemon=True).start()


def signal(execs: Execs, note: Mapping[str, Any], number: int) -> bool:
    """Send a signal to what is left of a command; False: nothing is."""
    group = execs.find_group(str(note["group"])) if "group" in note else None
    pid = int(note.get("pid", 0))
    alive = pid and procs.is_same(pid, int(note.get("born", 0)))
    if group is not None and group.is_populated():
        send(group, 0, number)
        return True
    if alive:
        send(None, pid, number)
    return bool(alive)


def _until(
    log: Journal, op: str, deadline: float, runs: Callable[[], bool], kill: Callable[[], None]
) -> None:
    while runs():
        left = deadline - time.monotonic()
        if left <= 0:
            kill()
        time.sleep(min(max(left, 0.05), _LOOK_SECONDS))
    log.tell(op, {"running": False})
