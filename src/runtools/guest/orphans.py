"""Commands that outlived the agent that started them: their deadline still holds.

How such a command ends is seen by nobody, so a repeat of its id is answered with ``outcome_unknown``,
which says whether something of it still runs. The group of one is held until nothing lives in it: until
then it is nobody else's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from runtools.guest import procs
from runtools.guest.execs import Execs, owner
from runtools.guest.groups import Group, send
from runtools.guest.journal import Journal

_LOOK_SECONDS: Final = 0.5


class Orphans:
    """What is left of the commands of the agents before this one."""

    def __init__(self, execs: Execs, log: Journal) -> None:
        self._execs = execs
        self._log = log
        self._lock = threading.Lock()
        self._left: dict[str, _Orphan] = {}

    def watch(self, op: str, note: Mapping[str, Any]) -> None:
        """Kill what is left of a command at its deadline, and note whether it runs."""
        group = self._execs.claim_group(str(note["group"]), owner(op)) if "group" in note else None
        orphan = _Orphan(group, int(note.get("pid", 0)), int(note.get("born", 0)))
        if "group" not in note and not orphan.pid:
            return  # the agent died before it knew: nobody can tell
        if not orphan.runs():
            self._execs.free_group(group)
            self._log.tell(op, {"running": False})
            return
        self._left[op] = orphan
        self._log.tell(op, {"running": True})
        arguments = (op, orphan, float(note["deadline"]))
        threading.Thread(target=self._until, args=arguments, daemon=True).start()

    def signal(self, op: str, number: int) -> bool:
        """Send a signal to what is left of a command; False: nothing is."""
        with self._lock:
            orphan = self._left.get(op)
            if orphan is None or not orphan.runs():
                return False
            send(orphan.group, orphan.pid, number)
            return True

    def _until(self, op: str, orphan: _Orphan, deadline: float) -> None:
        while orphan.runs():
            left = deadline - time.monotonic()
            if left <= 0:
                orphan.kill()
            time.sleep(min(max(left, 0.05), _LOOK_SECONDS))
        with self._lock:
            del self._left[op]
        self._execs.free_group(orphan.group)
        self._log.tell(op, {"running": False})


class _Orphan:
    """One of them: by its group, or by its leader where there are no groups."""

    def __init__(self, group: Group | None, pid: int, born: int) -> None:
        self.group = group
        self.pid = pid
        self._born = born

    def runs(self) -> bool:
        if self.group is not None:
            return self.group.is_populated()
        return self.pid != 0 and procs.is_same(self.pid, self._born)

    def kill(self) -> None:
        if self.group is not None:
            self.group.kill()
        else:
            procs.kill_session(self.pid)
