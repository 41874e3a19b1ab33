"""The durable processes of a machine, as the agent serves them: start, look, read, follow, act.

Each has its record (`records`) on the machine's disk and is held by a process of its own (`holder`). The
agent keeps nothing that it could lose: after a crash it finds all of them again.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from runtools.guest import journal, protocol
from runtools.guest.conn import Conn, ok
from runtools.guest.cradle import Cradle
from runtools.guest.execs import Execs
from runtools.guest.news import News
from runtools.guest.packets import MAX_INPUT, MAX_PACKET, READY
from runtools.guest.problems import Problem, invalid, op_id, whole
from runtools.guest.protocol import BYTES, JSON
from runtools.guest.record import Look, Record
from runtools.guest.records import Records

# Followers and those who wait: with 64 who watch files they leave threads of those for what lasts.
MAX_WATCHING: Final = 128
MAX_WAIT: Final = 60_000

_MAX_COMMAND: Final = 4096
_MAX_SIZE: Final = 1000
_TALK_SECONDS: Final = 30.0
_NEVER: Final = 1 << 62
_STREAMS: Final = ("output", "stdout", "stderr")


class Processes:
    """All of one machine."""

    def __init__(self, records: Records, execs: Execs, cradle: Cradle) -> None:
        self._records = records
        self._execs = execs
        self._cradle = cradle
        self._starting = threading.Lock()
        self._lock = threading.Lock()
        self._watching = 0

    # --- looking ---

    def get(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """How one stands."""
        with self._records.named(request) as record:
            return record.shape()

    def list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Those after a place in the order of their starts, as many as fit into an answer."""
        after, room = whole(request, "after", 0), protocol.MAX_LISTING
        shown: list[dict[str, Any]] = []
        for record in self._records.all()[after:]:
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
        return self._records.total_output()

    def read(self, conn: Conn, request: Mapping[str, Any], _: bytes) -> None:
        """Send what is there of a stream."""
        stream = _stream(request)
        start, limit = whole(request, "start", 0), whole(request, "limit", 1)
        if not 1 <= limit <= protocol.MAX_BYTES:
            raise invalid(f"limit must be 1 to {protocol.MAX_BYTES}")
        with (
            self._records.named(request) as record,
            contextlib.closing(record.tail(stream)) as tail,
        ):
            end = _checked(record, stream, start).ends(stream)
            where, data = tail.read(start, limit, end)
        conn.send(_piece(start, where, data))

    def wait(self, conn: Conn, request: Mapping[str, Any], _: bytes) -> None:
        """Answer when one is over, or when time is up."""
        deadline = time.monotonic() + min(whole(request, "timeout_ms", 0), MAX_WAIT) / 1000
        with self._records.named(request) as record:
            with self._watch(), contextlib.closing(News(record, conn)) as news:
                while not record.look().over and news.wait(_NEVER, deadline):
                    pass
            conn.send(ok(record.shape()))

    def follow(self, conn: Conn, request: Mapping[str, Any], _: bytes) -> None:
        """Send a stream as it comes, and at last how the process ended."""
        stream, at = _stream(request), whole(request, "start", 0)
        with (
            self._records.named(request) as record,
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
                known = self._start(request, key)
            elif known.facts["key"] != key:
                raise Problem(
                    "idempotency_mismatch",
                    f"{known.id} was used for another process",
                    hint="give every process an id of its own",
                )
        return known.shape()

    def _start(self, request: Mapping[str, Any], key: str) -> Record:
        order = self._execs.order(request, b"")
        user, env, program = self._execs.resolve(order)
        terminal = _size(request) if request.get("terminal") else None
        if terminal:
            env.setdefault("TERM", "xterm-256color")
        keep = whole(request, "keep", 1 << 24)
        if not 4096 <= keep <= 1 << 30:
            raise invalid("keep must be 4096 to 2**30 bytes")
        self._records.make_room()
        facts: dict[str, Any] = {
            "id": str(request["id"]),
            "key": key,
            "command": _shown(request["command"]),
            "cwd": str(request.get("cwd", "/workspace")),
            "user": order.user,
            "started": time.time(),
            "terminal": terminal is not None,
            "keep": keep,
        }
        record, lock, listener = self._records.make(facts)
        wanted = {
            "argv": list(order.argv),
            "program": program,
            "env": env,
            "cwd": order.cwd,
            "user": asdict(user),
            "group": record.facts["group"],
            "holders": self._execs.holders,
            "terminal": terminal,
            "keep": keep,
            "keep_input": bool(request.get("keep_input", True)),
        }
        try:
            self._hand_over(record, wanted, lock, listener)
        except BaseException:
            self._records.discard(record)
            raise
        self._records.add(record)
        return record

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
        with self._records.named(request) as record:
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
        with self._records.named(request) as record:
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


def _kept_answer(look: Look, op: str, key: str) -> bytes | None:
    """What an act was answered before the process ended."""
    known = (look.end or {}).get("ops", {}).get(op)
    if known is None:
        return None
    if known[0] != key:
        raise Problem("idempotency_mismatch", f"{op} was used for another request")
    return str(known[1]).encode()
