"""The records of all durable processes of a machine: found again, found by id, and let go of.

Each lies in a folder of its own (`record`) on the machine's disk. Those of processes that are over are kept
until there are more than `MAX_OVER`, or until together they take more of the disk than `_budget` allows;
the ones that ended first go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from runtools.guest import procs
from runtools.guest.execs import Execs
from runtools.guest.paths import Root
from runtools.guest.problems import Problem, of_errno
from runtools.guest.record import Look, Record, boot_id, damaged_id

FOLDER: Final = "/var/lib/runtools/processes"
MAX_OVER: Final = 1000
MAX_RUNNING: Final = 128

_MOST_BYTES: Final = 1 << 30


class Records:
    """All of one machine; each holds its process's group as long as that runs."""

    def __init__(self, root: Root, execs: Execs) -> None:
        self._folder = root.own(FOLDER)
        self._root = root.own("/")
        self._execs = execs
        self._lock = threading.Lock()
        self._boot = boot_id()
        self._forgotten = 0  # output of records that were dropped
        self._records: dict[str, Record] = {}
        self._find_all()

    def all(self) -> list[Record]:
        """In the order of their starts."""
        with self._lock:
            return list(self._records.values())

    def get(self, process_id: str) -> Record | None:
        """The one of a process.

        Raises:
            Problem: ``outcome_unknown``: there was one, and it is damaged.
        """
        known = self._records.get(process_id)
        damaged = damaged_id(_name(process_id))
        if known is None and damaged in self._records:
            raise Problem(
                "outcome_unknown",
                f"{process_id} was started, and its record was damaged since",
                hint=f"process {damaged} has what is left of it",
                details={"process": damaged},
            )
        return known

    @contextlib.contextmanager
    def named(self, request: Mapping[str, Any]) -> Iterator[Record]:
        """The one that a request names; it may be let go of while it is read.

        Raises:
            Problem: ``not_found``: it is not known, or not any more.
        """
        name = str(request.get("process"))
        unknown = Problem(
            "not_found",
            f"no process {name[:128]} is known inside",
            hint=f"of those that ended the last {MAX_OVER} are kept, as the disk allows",
        )
        with self._lock:
            record = self._records.get(name)
        if record is None:
            raise unknown
        try:
            yield record
        except FileNotFoundError as exc:
            raise unknown from exc

    def total_output(self) -> int:
        """Bytes that all processes ever printed."""
        total = self._forgotten
        for record in self.all():
            with contextlib.suppress(OSError):
                total += record.live().output
        return total

    def make(self, facts: dict[str, Any]) -> tuple[Record, int, socket.socket]:
        """A new one with a group, its lock, locked, and its socket, listening. It is not among them yet.

        Raises:
            Problem: there is no room for it.
        """
        group = self._execs.take_group(_owner(facts["id"]))
        of_now = {"group": group.path if group else "", "boot": self._boot}
        try:
            record, lock, listener = self._make(facts | of_now)
        except BaseException:
            self._execs.free_group(group)
            raise
        record.group, record.when_over = group, self._settle
        return record, lock, listener

    def _make(self, facts: dict[str, Any]) -> tuple[Record, int, socket.socket]:
        place = f"{self._folder}/{_name(facts['id'])}"
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            return Record.make(place, facts)
        except OSError as exc:
            raise of_errno(exc, "the process's record") from exc

    def add(self, record: Record) -> None:
        """Its process was started."""
        with self._lock:
            self._records[record.id] = record

    def discard(self, record: Record) -> None:
        """Its process was not."""
        self._release(record)
        record.remove()

    def make_room(self) -> None:
        """Let go of what is over and exceeds the bounds.

        Raises:
            Problem: ``unavailable``: too many run.
        """
        over: list[tuple[float, Record]] = []
        for record in list(self._records.values()):
            try:
                look = record.look()
            except FileNotFoundError:  # somebody inside removed it: nobody can reach it any more
                self._give_up(record)
                continue
            if look.over:
                over.append(((look.end or {}).get("at") or record.facts["started"], record))
        if len(self._records) - len(over) >= MAX_RUNNING:
            raise Problem(
                "unavailable",
                f"{MAX_RUNNING} durable processes run already",
                hint="end some of them; exec has no such bound",
            )
        over.sort(key=lambda pair: pair[0], reverse=True)
        left = self._budget()
        for n, (_, record) in enumerate(over, 1):
            left -= record.kept()
            if n >= MAX_OVER or left < 0:
                with self._lock:
                    del self._records[record.id]
                    self._forgotten += record.live().output
                record.remove()

    def _budget(self) -> int:
        disk = os.statvfs(self._root)
        return min(_MOST_BYTES, disk.f_blocks * disk.f_frsize // 4)

    def _settle(self, record: Record, look: Look) -> None:
        """One is over. What a lost one left running nobody can reach any more: it ends now."""
        with self._lock:
            group = record.group
            if look.lost and group is not None:
                group.kill()
        if look.lost and group is None and self._is_alive(record, look):
            procs.kill_session(look.live.pid)
        self._release(record)

    def _give_up(self, record: Record) -> None:
        """Its folder is gone, and what it held with it."""
        with self._lock:
            del self._records[record.id]
            if record.group is not None:
                record.group.kill()
        self._release(record)

    def _is_alive(self, record: Record, look: Look) -> bool:
        """Whether the process of a lost one runs on; a number of another boot is somebody else's."""
        ours = record.facts.get("boot", self._boot) == self._boot
        return ours and procs.is_same(look.live.pid, look.live.born)

    def _release(self, record: Record) -> None:
        """Give back the group of one that runs no more."""
        with self._lock:
            group, record.group = record.group, None
        self._execs.free_group(group)

    def _find_all(self) -> None:
        """Those of the agents before this one. What never came to be is removed."""
        found = []
        for name in os.listdir(self._folder) if os.path.isdir(self._folder) else ():
            place = f"{self._folder}/{name}"
            try:
                record = None if name.endswith(".new") else self._find(place)
            except (OSError, ValueError) as exc:  # of one, and the others are to be found
                sys.stderr.write(f"{place} is left as it is: {exc}\n")
                continue
            if record is None:
                shutil.rmtree(place, ignore_errors=True)
            else:
                found.append(record)
        found.sort(key=lambda record: record.facts["started"])
        self._records = {record.id: record for record in found}

    def _find(self, place: str) -> Record | None:
        """The one in a folder; None: it never was."""
        record = Record.load(place)
        if record.damaged and not os.listdir(place):
            return None
        if record.damaged:
            sys.stderr.write(f"{place} is damaged: it is {record.id} from now on\n")
        if record.facts["group"]:
            record.group = self._execs.claim_group(record.facts["group"], _owner(record.id))
        record.when_over = self._settle
        if record.look().over and not record.was_begun():
            return None
        return record


def _name(process_id: str) -> str:
    return hashlib.blake2b(process_id.encode(), digest_size=12).hexdigest()


def _owner(process_id: str) -> str:
    """Whose the group of a process is, as the group itself says."""
    return f"process {process_id}"
