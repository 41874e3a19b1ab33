"""The operations: what each takes, does and answers, and which of them are journaled."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtools.guest import disk, journal, procs, protocol
from runtools.guest.archive import Packer, Unpacker
from runtools.guest.conn import Conn, Gone, failed, ok
from runtools.guest.content import Reader, Writer
from runtools.guest.edits import Edit
from runtools.guest.execs import Ended, Execs, Order, owner
from runtools.guest.files import Files
from runtools.guest.journal import Journal
from runtools.guest.lasting import LASTING, Lasting
from runtools.guest.orphans import Orphans
from runtools.guest.paths import Root
from runtools.guest.problems import Problem, invalid, op_id, whole
from runtools.guest.processes import Processes
from runtools.guest.renew import Renewal, load_env
from runtools.guest.stats import Meter
from runtools.guest.switch import Switch
from runtools.guest.watches import Watches

Request = Mapping[str, Any]
_LONGEST_WAIT_SECONDS: Final = 60.0
_STARTING_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.01
_UNBEGUN: Final = "command {} was ended before it had begun; it was not run"
_GO: Final = protocol.frame(protocol.JSON, b'{"go":true}')


class Ops:
    """All operations of one agent."""

    def __init__(
        self,
        root: Root,
        execs: Execs,
        processes: Processes,
        log: Journal,
        meter: Meter,
        set_token: Callable[[str], None],
        device: str,
    ) -> None:
        self.on_quiesce: Callable[[Conn], None] = lambda _: None
        self.on_new_token: Callable[[Conn], None] = lambda _: None
        self._root = root
        self._execs = execs
        self._journal = log
        self._meter = meter
        self._files = Files(root)
        self._renewal = Renewal(root, set_token)
        self._watches = Watches(root)
        self._switch = Switch(meter.own_port)
        self._orphans = Orphans(execs, log)
        self._lasting = Lasting()
        self._device = device
        execs.env = load_env(root)
        files = self._files
        self._plain: dict[str, Callable[[Request], object]] = {
            "ping": lambda _: {},
            "stat": lambda r: files.stat(r.get("path")),
            "list": lambda r: files.list(r.get("path"), whole(r, "depth", 1)),
            "stats": lambda _: meter.stats(),
            "activity": lambda _: meter.activity(
                execs.running(), execs.total_output() + processes.total_output()
            ),
            "process": processes.get,
            "processes": processes.list,
            "process_close": processes.act,
            "process_signal": processes.act,
            "process_resize": processes.act,
            "grow": lambda r: {"bytes": disk.grow(self._device, whole(r, "bytes", 0))},
        }
        self._acts: dict[str, Callable[[Request], object]] = {
            "mkdir": lambda r: files.mkdir(r.get("path"), whole(r, "mode", 0o755)),
            "chmod": lambda r: files.chmod(r.get("path"), whole(r, "mode", None)),
            "move": lambda r: files.move(*_two(r), overwrite=bool(r.get("overwrite"))),
            "copy": lambda r: files.copy(*_two(r), overwrite=bool(r.get("overwrite"))),
            "remove": lambda r: files.remove(r.get("path"), recursive=bool(r.get("recursive"))),
            "exec_signal": self._exec_signal,
        }
        self._streams: dict[str, Callable[[Conn, Request, bytes], None]] = {
            "exec": self._exec,
            "read": self._read,
            "download": self._download,
            "write": self._write,
            "edit": self._edit,
            "upload": self._upload,
            "renew": self._renew,
            "quiesce": self._quiesce,
            "watch": self._watch,
            "connect": self._connect,
            "process_start": lambda c, r, raw: c.send(ok(processes.start(r, raw))),
            "process_wait": processes.wait,
            "process_output": processes.read,
            "process_follow": processes.follow,
            "process_input": processes.input,
        }

    def features(self) -> dict[str, Any]:
        """What this agent can do here, for the hello."""
        return {
            "kill": self._execs.kills_by,
            "root": os.geteuid() == 0,
            "machine": self._renewal.machine,
        }

    def handle(self, conn: Conn, request: Request, raw: bytes) -> None:
        """Do one request and answer it.

        Raises:
            Problem: the answer is that it was refused or failed.
            Gone: there is nobody to answer.
        """
        name = request.get("do")
        with self._lasting.one() if name in LASTING else contextlib.nullcontext():
            self._handle(name, conn, request, raw)

    def _handle(self, name: object, conn: Conn, request: Request, raw: bytes) -> None:
        if name in self._streams:
            self._streams[name](conn, request, raw)
        elif name in self._plain:
            conn.send(ok(self._plain[name](request)))
        elif name in self._acts:
            act = self._acts[name]
            self._once(conn, request, raw, {}, lambda: ok(act(request)))
        else:
            raise invalid(f"the agent knows no operation {name!r}")

    # --- journaled ---

    def _once(
        self,
        conn: Conn,
        request: Request,
        raw: bytes,
        note: Mapping[str, Any],
        act: Callable[[], bytes],
        unused: Callable[[], None] = lambda: None,
    ) -> None:
        """Do a mutating request, or give the answer that its id got before."""
        op = op_id(request)
        key = journal.digest(raw)
        while not self._begin(op, key, note, unused):
            answer = self._journal.answer(op, conn.is_gone)
            if answer is not None:
                conn.send(answer)
                return
            if conn.is_gone():
                raise Gone("it did not wait for the answer")
        conn.send(self._done(op, act))

    def _begin(
        self, op: str, key: str, note: Mapping[str, Any], unused: Callable[[], None]
    ) -> bool:
        try:
            begun = self._journal.begin(op, key, note)
        except BaseException:
            unused()
            raise
        if not begun:
            unused()
        return begun

    def _done(self, op: str, act: Callable[[], bytes]) -> bytes:
        try:
            answer = act()
        except Gone:
            self._journal.abandon(op)
            raise
        except Problem as problem:
            if problem.code == "unavailable":  # nothing was done, and it may go well later
                self._journal.abandon(op)
                raise
            answer = failed(problem)
        except BaseException as exc:
            self._journal.end(op, failed(Problem("internal", f"{type(exc).__name__}: {exc}")))
            raise
        self._journal.end(op, answer)
        return answer

    def _exec(self, conn: Conn, request: Request, raw: bytes) -> None:
        size = whole(request, "stdin", 0)
        if size:
            if size > protocol.MAX_STDIN:
                raise Problem("too_large", f"stdin takes at most {protocol.MAX_STDIN} bytes")
            conn.expect_body()  # it comes also to a command for which there is no place
        with self._lasting.one():
            stdin = b"".join(_bounded(conn, size)) if size else b""
            self._run(conn, request, raw, self._execs.order(request, stdin))

    def _run(self, conn: Conn, request: Request, raw: bytes, order: Order) -> None:
        op = op_id(request)
        group = self._execs.take_group(owner(op))
        note: dict[str, Any] = {"deadline": time.monotonic() + order.timeout}
        if group is not None:
            note["group"] = group.path

        def started(pid: int) -> None:
            if group is None:
                self._note_child(op, pid)

        self._once(
            conn,
            request,
            raw,
            note,
            lambda: _exec_answer(self._execs.run(op, order, group, started)),
            lambda: self._execs.free_group(group),
        )

    def _note_child(self, op: str, pid: int) -> None:
        """So that the next agent finds it.

        Raises:
            Problem: there is no room for that; `run` then kills it.
        """
        try:
            self._journal.amend(op, {"pid": pid, "born": procs.born(pid)})
        except Problem as problem:
            raise Problem(
                "outcome_unknown",
                f"command {op} was begun and killed at once: {problem.message}",
                hint=problem.hint,
            ) from problem

    def _exec_signal(self, request: Request) -> dict[str, Any]:
        """Signal a running command. One that has not come yet, as its caller may know before us, never
        begins: who signals a command does not want it any more.
        """
        op = op_id({"id": request.get("exec")})
        number = whole(request, "signal", None)
        if not 1 <= number <= 64:
            raise invalid(f"there is no signal {number}")
        unbegun = failed(Problem("process_ended", _UNBEGUN.format(op)))
        state = self._journal.forbid(op, unbegun)
        if state == "lost" and self._orphans.signal(op, number):
            return {}
        deadline = time.monotonic() + _STARTING_SECONDS
        while state == "running" and not self._execs.signal(op, number):
            if time.monotonic() > deadline:
                raise Problem("unavailable", f"command {op} is still being started")
            time.sleep(_LOOK_SECONDS)
            state = self._journal.forbid(op, unbegun)
        if state not in ("running", None):
            raise Problem("process_ended", f"command {op} has ended")
        return {}

    def _write(self, conn: Conn, request: Request, raw: bytes) -> None:
        mode = None if request.get("mode") is None else whole(request, "mode", None)
        writer = Writer(self._root, request.get("path"), mode, str(request.get("how", "replace")))

        def act() -> bytes:
            writer.open()
            conn.send(_GO)
            conn.expect_body()
            writer.feed(conn)
            return ok(writer.finish())

        self._once(conn, request, raw, {"temporary": writer.temporary}, act)

    def _edit(self, conn: Conn, request: Request, raw: bytes) -> None:
        edit = Edit(self._root, request)
        self._once(conn, request, raw, {"temporary": edit.temporary}, lambda: ok(edit.run()))

    def _upload(self, conn: Conn, request: Request, raw: bytes) -> None:
        unpacker = Unpacker(self._root, request.get("path"))

        def act() -> bytes:
            unpacker.open()
            conn.send(_GO)
            conn.expect_body()
            return ok(unpacker.feed(conn.body()))

        self._once(conn, request, raw, {}, act)

    # --- not journaled ---

    def _read(self, conn: Conn, request: Request, _: bytes) -> None:
        end = None if request.get("end") is None else whole(request, "end", None)
        Reader(self._root, request.get("path"), whole(request, "start", 0), end).send(conn)

    def _download(self, conn: Conn, request: Request, _: bytes) -> None:
        Packer(self._root, request.get("path")).send(conn)

    def _renew(self, conn: Conn, request: Request, _: bytes) -> None:
        evidence = self._renewal.run(request)
        self._execs.env = load_env(self._root)
        if request.get("fresh"):
            self.on_new_token(conn)
            self._switch.drop()
        conn.send(ok(evidence))

    def _quiesce(self, conn: Conn, _request: Request, _: bytes) -> None:
        os.sync()
        self.on_quiesce(conn)
        conn.last = True
        conn.send(ok({}))

    def _connect(self, conn: Conn, request: Request, _: bytes) -> None:
        """Whatever comes of it, this connection carries no further request: bytes may follow at once."""
        conn.last = True
        inner = self._switch.connect(whole(request, "port", None))
        conn.send(ok({}))
        outer, early = conn.hand_over()
        self._switch.take(outer, inner, early)

    def _watch(self, conn: Conn, request: Request, _: bytes) -> None:
        after = None if request.get("after") is None else whole(request, "after", None)
        answer = self._watches.poll(
            str(request.get("scope", "")),
            request.get("path"),
            bool(request.get("recursive", True)),
            after,
            min(whole(request, "wait_ms", 0) / 1000, _LONGEST_WAIT_SECONDS),
            conn.is_gone,
        )
        conn.send(ok(answer))

    # --- after a crash ---

    def recover(self) -> None:
        """See to what the agent before this one left under way: clean up, and watch what still runs."""
        for op, note in self._journal.lost().items():
            if note.get("temporary"):
                _unlink(note["temporary"])
            if "deadline" in note:
                self._orphans.watch(op, note)


def _exec_answer(ended: Ended) -> bytes:
    head = {
        "exit_code": ended.exit_code,
        "signal": ended.signal,
        "duration_ms": round(ended.duration_ms, 3),
        "timed_out": ended.timed_out,
        "truncated": ended.truncated,
        "stdout": len(ended.stdout),
        "stderr": len(ended.stderr),
    }
    return ok(head) + b"".join(protocol.body_frames(ended.stdout + ended.stderr))


def _bounded(conn: Conn, size: int) -> list[bytes]:
    parts = []
    for piece in conn.body():
        size -= len(piece)
        if size < 0:
            raise Gone("more stdin than was said")
        parts.append(piece)
    return parts


def _two(request: Request) -> tuple[object, object]:
    return request.get("source"), request.get("target")


def _unlink(place: str) -> None:
    try:
        os.unlink(place)
    except OSError:
        return  # it was never made, or was put in place
