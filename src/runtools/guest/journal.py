"""What was asked under which id and how it was answered, so that a repeat is never done again.

Owns the folder ``journal`` in the agent's state (tmpfs): numbered segments of records. A record is one
JSON line, for an end followed by the answer's frames as they went over the wire. The oldest segments
go when all together exceed `MAX_BYTES`; ids whose answers went are still known (up to `MAX_IDS`).

    begin ──▶ running ──end──▶ ended ──segment dropped──▶ forgotten
                 │ abandon: nothing was done, the id is free again
                 └ the agent died: lost, answered with outcome_unknown
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from runtools.guest.problems import Problem

MAX_BYTES: Final = 24 << 20
MAX_IDS: Final = 10_000
_SEGMENT_BYTES: Final = 2 << 20
_MAX_LINE: Final = 64 << 10
ANY_REQUEST: Final = "any"  # in place of a digest
_encode = json.JSONEncoder(separators=(",", ":")).encode

State = Literal["running", "ended", "lost", "forgotten"]


class Entry:
    """What is known of one id."""

    __slots__ = ("digest", "length", "note", "offset", "segment", "state")

    def __init__(self, digest: str, note: dict[str, Any]) -> None:
        self.state: State = "running"
        self.digest = digest
        self.note = note
        self.segment = 0
        self.offset = 0
        self.length = 0


def digest(request: bytes) -> str:
    """What tells whether two requests under one id are the same."""
    return hashlib.blake2b(request, digest_size=12).hexdigest()


class Journal:
    """The journal of one agent; every method may be called by any thread."""

    def __init__(self, folder: str, max_bytes: int = MAX_BYTES, max_ids: int = MAX_IDS) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_ids = max_ids
        self._changed = threading.Condition()
        self._entries: dict[str, Entry] = {}
        self._sizes: dict[int, int] = {}  # of each segment, oldest first
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for number in sorted(int(n) for n in os.listdir(folder) if n.isdigit()):
            self._sizes[number] = self._replay(number)
        for entry in self._entries.values():
            if entry.state == "running":
                entry.state = "lost"
        self._fd = -1
        self._open_segment(max(self._sizes, default=0) + 1)

    def begin(self, op: str, request: str, note: Mapping[str, Any] | None = None) -> bool:
        """Whether the id is new: then it is the caller's to do, and to `end` or `abandon`.

        Raises:
            Problem: ``idempotency_mismatch``, or ``unavailable`` when there is no room to note it.
        """
        with self._changed:
            entry = self._entries.get(op)
            if entry is not None:
                if entry.digest not in (request, ANY_REQUEST):
                    raise Problem(
                        "idempotency_mismatch",
                        f"{op} was used for another request",
                        hint="give every request an id of its own",
                    )
                return False
            fresh = Entry(request, dict(note or {}))
            self._note_begin(op, fresh)
            self._entries[op] = fresh
            return True

    def forbid(self, op: str, answer: bytes) -> State | None:
        """See to it that an id that nobody has used yet is never begun: whatever is asked under it later
        gets this answer. One that was used stays as it is, and how it stands is returned.
        """
        with self._changed:
            entry = self._entries.get(op)
            if entry is not None:
                return entry.state
            fresh = Entry(ANY_REQUEST, {})
            self._note_begin(op, fresh)
            self._entries[op] = fresh
        self.end(op, answer)
        return None

    def amend(self, op: str, note: Mapping[str, Any]) -> None:
        """Add what was learnt after the begin and matters after a crash."""
        with self._changed:
            entry = self._entries[op]
            entry.note.update(note)
            self._note_begin(op, entry)

    def end(self, op: str, answer: bytes) -> None:
        """Note the answer and wake those who wait for it."""
        with self._changed:
            entry = self._entries[op]
            try:
                self._store(op, entry, answer)
            except OSError:
                # No room in memory: the id stays known, its answer does not.
                entry.state = "forgotten"
            with contextlib.suppress(OSError, Problem):  # tried again at the next end
                self._trim()
            self._changed.notify_all()

    def abandon(self, op: str) -> None:
        """Nothing was done: a repeat begins anew."""
        with self._changed:
            self._entries.pop(op)
            with contextlib.suppress(OSError):  # a crash from here on answers outcome_unknown
                self._append(_line({"t": "abandon", "id": op}))
            self._changed.notify_all()

    def answer(self, op: str, give_up: Callable[[], bool]) -> bytes | None:
        """The frames of the answer to an id that was begun, waiting for its end where necessary.

        None when ``give_up`` says so while waiting, or when the one who did it abandoned it.

        Raises:
            Problem: ``outcome_unknown``.
        """
        with self._changed:
            while True:
                entry = self._entries.get(op)
                if entry is None:
                    return None
                if entry.state == "ended":
                    return self._load(entry)
                if entry.state != "running":
                    raise _unknown(op, entry)
                if not self._changed.wait(1.0) and give_up():
                    return None

    def lost(self) -> dict[str, dict[str, Any]]:
        """The notes of what was under way when the agent before this one died."""
        with self._changed:
            return {op: e.note for op, e in self._entries.items() if e.state == "lost"}

    def tell(self, op: str, note: Mapping[str, Any]) -> None:
        """Say more about a lost id; it appears in the details of its answer."""
        with self._changed:
            self._entries[op].note.update(note)

    # --- segments, under the lock ---

    def _note_begin(self, op: str, entry: Entry) -> None:
        line = _line({"t": "begin", "id": op, "digest": entry.digest, "note": entry.note})
        try:
            self._append(line)
        except OSError as exc:
            raise Problem(
                "unavailable",
                f"the agent cannot note what it does: {exc.strerror}",
                hint="free memory inside the sandbox: /run is full",
            ) from exc

    def _store(self, op: str, entry: Entry, answer: bytes) -> None:
        line = _line({"t": "end", "id": op, "digest": entry.digest, "length": len(answer)})
        entry.offset = self._append(line, answer) + len(line)
        entry.segment = self._segment
        entry.length = len(answer)
        entry.state = "ended"
        entry.note = {}

    def _append(self, *parts: bytes) -> int:
        start = self._sizes[self._segment]
        want = sum(map(len, parts))
        if os.pwritev(self._fd, parts, start) != want:
            raise OSError(28, "no space left")
        self._sizes[self._segment] = start + want
        return start

    def _load(self, entry: Entry) -> bytes:
        fd = os.open(self._file(entry.segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, entry.length, entry.offset)
        finally:
            os.close(fd)

    def _trim(self) -> None:
        if self._sizes[self._segment] > _SEGMENT_BYTES:
            self._open_segment(self._segment + 1)
            # So that a crash still finds what is under way, whichever segments are dropped.
            for op, entry in self._entries.items():
                if entry.state == "running":
                    self._note_begin(op, entry)
        while len(self._sizes) > 2 and sum(self._sizes.values()) > self._max_bytes:
            self._drop(next(iter(self._sizes)))
        while len(self._entries) > self._max_ids:
            oldest = next((op for op, e in self._entries.items() if e.state != "running"), None)
            if oldest is None:
                return
            del self._entries[oldest]

    def _drop(self, segment: int) -> None:
        os.unlink(self._file(segment))
        del self._sizes[segment]
        for entry in self._entries.values():
            if entry.state == "ended" and entry.segment == segment:
                entry.state = "forgotten"

    def _open_segment(self, number: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fresh = os.open(self._file(number), flags, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._segment, self._sizes[number] = fresh, number, 0

    def _file(self, segment: int) -> str:
        return f"{self._folder}/{segment}"

    def _replay(self, segment: int) -> int:
        """Take in a segment of the agent before; a record torn by its death ends it."""
        with open(self._file(segment), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = 0
            while True:
                try:
                    record = json.loads(file.readline(_MAX_LINE))
                    start = file.tell() + self._take(record, segment, file.tell(), size)
                except (ValueError, KeyError, TypeError):
                    return start
                file.seek(start)

    def _take(self, record: dict[str, Any], segment: int, offset: int, size: int) -> int:
        """Take in one record; returns how many bytes of answer follow its line."""
        op = record["id"]
        if record["t"] == "begin":
            self._entries[op] = Entry(record["digest"], record["note"])
        elif record["t"] == "abandon":
            self._entries.pop(op, None)
        else:
            length = int(record["length"])
            if offset + length > size:
                raise ValueError("torn")
            entry = self._entries.setdefault(op, Entry(record["digest"], {}))
            entry.state = "ended"
            entry.segment, entry.offset, entry.length = segment, offset, length
            return length
        return 0


def _line(record: dict[str, Any]) -> bytes:
    return _encode(record).encode() + b"\n"


def _unknown(op: str, entry: Entry) -> Problem:
    if entry.state == "forgotten":
        return Problem(
            "outcome_unknown",
            f"{op} was done, but its answer is no longer kept",
            details={"done": True},
        )
    return Problem(
        "outcome_unknown",
        f"{op} was begun before the agent inside was restarted; nobody saw how it ended",
        hint="look inside what was done before trying again under another id",
        details={k: v for k, v in entry.note.items() if k in {"running", "pid"}},
    )
