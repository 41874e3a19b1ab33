"""The durable processes of a machine, as the agent serves them: start, look, read, follow, act.

Each lies in a folder of its own (`record`) on the machine's disk and is held by a process of its own
(`holder`). The agent keeps nothing that it could lose: after a crash it finds all of them again.
The records of processes that are over are kept until there are more than `MAX_OVER`, or until together
they take more of the disk than `_budget` allows; the ones that ended first go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from runtools.guest import journal, procs, protocol
from runtools.guest.conn import Conn, ok
from runtools.guest.cradle import Cradle
from runtools.guest.execs import Execs
from runtools.guest.holder import MAX_INPUT, MAX_PACKET, READY
from runtools.guest.news import News
from runtools.guest.paths import Root
from runtools.guest.problems import Problem, invalid, of_errno, op_id, whole
from runtools.guest.protocol import BYTES, JSON
from runtools.guest.record import Look, Record, boot_id, damaged_id

FOLDER: Final = "/var/lib/runtools/processes"
MAX_OVER: Final = 1000
MAX_RUNNING: Final = 128
MAX_WATCHING: Final = 160  # followers and those who wait: each takes one of the agent's threads
MAX_WAIT: Final = 60_000

_MOST_BYTES: Final = 1 << 30
_MAX_COMMAND: Final = 4096
_MAX_SIZE: Final = 1000
_TALK_SECONDS: Final = 30.0
_NEVER: Final = 1 << 62
_STREAMS: Final = ("output", "stdout", "stderr")


class Processes:
    """All of one machine."""

    def __init__(self, root: Root, execs: Execs, cradle: Cradle) -> None:
        self._folder = root.own(FOLDER)
        self._root = root.own("/")
        self._execs = execs
        self._cradle = cradle
        self._starting = threading.Lock()
        self._lock = threading.Lock()
        self._watching = 0
        self._boot = boot_id()
        self._forgotten = 0  # output of records that were dropped
        self._records: dict[str, Record] = {}
        self._find_all()

    # --- looking ---

    def get(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """How one stands."""
        with self._found(request) as record:
            return record.shape()

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Those after a place in the order of their starts, as many as fit into an answer."""
        after, room = whole(request, "after", 0), protocol.MAX_LISTING
        with self._lock:
            records = list(self._records.values())[after:]
        shown: list[dict[str, Any]] = []
        for record in records:
            with contextlib.suppress(OSError):  # dropped since
                shape = record.shape()
                room -= len(json.dumps(shape))
                if room < 0:
                    break
                shown.append(shape)
            after += 1
        return {"processes": shown, "next": after if room < 0 else None}

    def total_output(self) -> int:
        """Bytes that all of them ever printed."""
        with self._lock:
            records = list(self._records.values())
        total = self._forgotten
        for record in records:
            with contextlib.suppress(OSError):
                total += record.live().output
        return total

    def read(self, conn: Conn, request: Mapping[str, Any], _: bytes) -> None:
        """Send what is there of a stream."""
        stream = _stream(request)
        start, limit = whole(request, "start", 0), whole(request, "limit", 1)
        if not 1 <= limit <= protocol.MAX_BYTES:
            raise invalid(f"limit must be 1 to {protocol.MAX_BYTES}")
        with self._found(request) as record, contextlib.closing(record.tail(stream)) as tail:
            end = _checked(record, stream, start).ends(stream)
            where, data = tail.read(start, limit, end)
        conn.send(_piece(start, where, data))

    def wait(self, conn: Conn, request: Mapping[str, Any], _: bytes) -> None:
        """Answer when one is over, or when time is up."""
        deadline = time.monotonic() + min(whole(request, "timeout_ms", 0), MAX_WAIT) / 1000
        with self._found(request) as record:
            with self._watch(), contextlib.closing(News(record, conn)) as news:
                while not record.look().over and news.wait(_NEVER, deadline):
                    pass
            conn.send(ok(record.shape()))

    def follow(self, conn: Conn, request: Mapping[str, Any], _: bytes) -> None:
        """Send a stream as it comes, and at last how the process ended."""
        stream, at = _stream(request), whole(request, "start", 0)
        with (
            self._found(request) as record,
            self._watch(),
            contextlib.closing(record.tail(stream)) as tail,
            contextlib.closing(News(record, conn)) as news,
        ):
            look = _checked(record, stream, at)
            while True:
                where, data = tail.read(at, protocol.CHUNK, look.ends(stream))
                if data or where > at:
                    conn.send(_piece(at, where, data))
                    at = where + len(data)
                elif look.over:
                    conn.send(ok({"end": at, "process": record.shape()}))
                    return
                else:
                    look = news.next(look)

    # --- starting ---

    def start(self, request: Mapping[str, Any], raw: bytes) -> dict[str, Any]:
        """Start one, or say how the one stands that was started under its id.

        Raises:
            Problem: it was not started; the code says why. ``outcome_unknown``: it was, before its
                record was damaged.
        """
        key = journal.digest(raw)
        with self._starting:
            known = self._records.get(op_id(request))
            if known is None:
                self._check_undamaged(op_id(request))
                known = self._start(request, key)
            elif known.facts["key"] != key:
                raise Problem(
                    "idempotency_mismatch",
                    f"{known.id} was used for another process",
                    hint="give every process an id of its own",
                )
        return known.shape()

    def _check_undamaged(self, process_id: str) -> None:
        damaged = damaged_id(_name(process_id))
        if damaged in self._records:
            raise Problem(
                "outcome_unknown",
                f"{process_id} was started, and its record was damaged since",
                hint=f"process {damaged} has what is left of it",
                details={"process": damaged},
            )

    def _start(self, request: Mapping[str, Any], key: str) -> Record:
        order = self._execs.order(request, b"")
        user, env, program = self._execs.resolve(order)
        terminal = _size(request) if request.get("terminal") else None
        if terminal:
            env.setdefault("TERM", "xterm-256color")
        keep = whole(request, "keep", 1 << 24)
        if not 4096 <= keep <= 1 << 30:
            raise invalid("keep must be 4096 to 2**30 bytes")
        self._make_room()
        facts: dict[str, Any] = {
            "id": str(request["id"]),
            "key": key,
            "command": _shown(request["command"]),
            "cwd": str(request.get("cwd", "/workspace")),
            "user": order.user,
            "started": time.time(),
            "terminal": terminal is not None,
            "keep": keep,
            "boot": self._boot,
        }
        group = self._execs.take_group(_owner(facts["id"]))
        wanted = {
            "argv": list(order.argv),
            "program": program,
            "env": env,
            "cwd": order.cwd,
            "user": asdict(user),
            "group": group.path if group else "",
            "holders": self._execs.holders,
            "terminal": terminal,
            "keep": keep,
            "keep_input": bool(request.get("keep_input", True)),
        }
        try:
            record, lock, listener = self._make(facts | {"group": wanted["group"]})
        except BaseException:
            self._execs.free_group(group)
            raise
        record.group, record.when_over = group, self._settle
        try:
            self._hand_over(record, wanted, lock, listener)
        except BaseException:
            self._release(record)
            record.remove()
            raise
        with self._lock:
            self._records[record.id] = record
        return record

    def _make(self, facts: dict[str, Any]) -> tuple[Record, int, socket.socket]:
        place = f"{self._folder}/{_name(facts['id'])}"
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            return Record.make(place, facts)
        except OSError as exc:
            raise of_errno(exc, "the process's record") from exc

    def _hand_over(
        self, record: Record, order: dict[str, Any], lock: int, listener: socket.socket
    ) -> None:
        """Have a holder forked for it, and hear from it that it was started."""
        text = os.memfd_create("order", os.MFD_CLOEXEC)
        folder = os.open(record.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.write(text, json.dumps(order).encode())
            os.lseek(text, 0, os.SEEK_SET)
            with contextlib.suppress(OSError):  # then nobody holds the lock
                self._cradle.fork([lock, listener.fileno(), folder, text])
        finally:
            for fd in (lock, folder, text):
                os.close(fd)
            listener.close()
        if self._ask(record, READY) == READY:
            return
        look = record.look()
        if not look.over:
            return  # it takes its time; how it went will be seen in the record
        problem = (look.end or {}).get("problem")
        if look.live.pid and problem is None:
            return  # over already
        if problem is None:
            raise Problem(
                "unavailable",
                "nothing more can be started inside",
                hint="end some of what runs there, or give the sandbox more memory",
            )
        raise Problem(**problem)

    def _make_room(self) -> None:
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

    # --- acts ---

    def act(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Close the input, send a signal, or resize; a repeat of its id does nothing."""
        do = str(request.get("do")).removeprefix("process_")
        wish: dict[str, Any] = {"do": do}
        if do == "signal":
            wish["signal"] = number = whole(request, "signal", 0)
            if not 1 <= number <= 64:
                raise invalid(f"there is no signal {number}")
        elif do == "resize":
            wish["rows"], wish["columns"] = _size(request)
        with self._found(request) as record:
            self._do(record, wish, request, b"")
            return record.shape()

    def input(self, conn: Conn, request: Mapping[str, Any], _: bytes) -> None:
        """Give one input; answers how much it was given in all."""
        conn.expect_body()
        data = b""
        for piece in conn.body():
            data += piece
            if len(data) > MAX_INPUT:
                raise Problem("too_large", f"at most {MAX_INPUT} bytes of input at a time")
        with self._found(request) as record:
            conn.send(ok(self._do(record, {"do": "input"}, request, data)))

    def _do(
        self, record: Record, wish: dict[str, Any], request: Mapping[str, Any], data: bytes
    ) -> Any:
        op = op_id(request)
        key = journal.digest(json.dumps(wish).encode() + data)
        packet = json.dumps(wish | {"op": op, "key": key}).encode() + b"\n" + data
        answer = self._ask(record, packet) or _kept_answer(record.look(), op, key)
        if answer is None:
            if record.look().over:
                raise Problem("process_ended", f"{record.id} has ended")
            raise Problem("unavailable", "its holder did not answer", hint="ask again")
        said = json.loads(answer)
        if "error" in said:
            raise Problem(**said["error"])
        return said["ok"]

    def _ask(self, record: Record, packet: bytes) -> bytes:
        """What the holder answers; nothing, when it is gone."""
        try:
            sock = record.connect()
        except OSError:
            return b""
        with sock:
            sock.settimeout(_TALK_SECONDS)
            try:
                sock.send(packet)
                return sock.recv(MAX_PACKET)
            except OSError:
                return b""

    # --- how ---

    @contextlib.contextmanager
    def _found(self, request: Mapping[str, Any]) -> Iterator[Record]:
        """The process that a request names; it may be let go of while it is read.

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

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        with self._lock:
            if self._watching >= MAX_WATCHING:
                raise Problem("unavailable", f"{MAX_WATCHING} already follow or wait inside")
            self._watching += 1
        try:
            yield
        finally:
            with self._lock:
                self._watching -= 1

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


def _checked(record: Record, stream: str, start: int) -> Look:
    look = record.look()
    end = look.ends(stream)
    if start > end:
        raise Problem(
            "invalid_request",
            f"offset {start} lies beyond the end of the output, {end}",
            details={"end": end},
        )
    return look


def _piece(start: int, where: int, data: bytes) -> bytes:
    # Written by hand: it is in the way of every piece of output.
    text = b'{"ok":{"offset":%d,"dropped":%d,"size":%d}}' % (where, where - start, len(data))
    head = protocol.frame(JSON, text)
    return head + protocol.frame(BYTES, data) if data else head


def _stream(request: Mapping[str, Any]) -> str:
    stream = request.get("stream", "output")
    if stream not in _STREAMS:
        raise invalid(f"stream must be one of {', '.join(_STREAMS)}")
    return str(stream)


def _size(request: Mapping[str, Any]) -> list[int]:
    rows, columns = whole(request, "rows", 0), whole(request, "columns", 0)
    if not (1 <= rows <= _MAX_SIZE and 1 <= columns <= _MAX_SIZE):
        raise invalid(f"a terminal has 1 to {_MAX_SIZE} rows and columns, not {rows} x {columns}")
    return [rows, columns]


def _shown(command: str | list[str]) -> str | list[str]:
    """A command as it is told later; a very long one in part."""
    if isinstance(command, str):
        return command if len(command) <= _MAX_COMMAND else command[:_MAX_COMMAND] + "…"
    shown: list[str] = []
    room = _MAX_COMMAND
    for word in command:
        room -= len(word) + 1
        if room < 0:
            return [*shown, "…"]
        shown.append(word)
    return shown


def _name(process_id: str) -> str:
    return hashlib.blake2b(process_id.encode(), digest_size=12).hexdigest()


def _kept_answer(look: Look, op: str, key: str) -> bytes | None:
    """What an act was answered before the process ended."""
    known = (look.end or {}).get("ops", {}).get(op)
    if known is None:
        return None
    if known[0] != key:
        raise Problem("idempotency_mismatch", f"{op} was used for another request")
    return str(known[1]).encode()


def _owner(process_id: str) -> str:
    """Whose the group of a process is, as the group itself says."""
    return f"process {process_id}"
