"""The holder of one durable process: its parent, its pipes or terminal, and the one that sees its end.

It is forked by the cradle with four open files: the lock that says that it lives, the socket on which the
agent speaks to it, the folder of the process, and the order. It spools what the process prints
(`spool`), feeds it what it is sent, and writes down how it ended. Nothing of that needs the agent, which
may die and come back meanwhile.

    lock       locked as long as the holder lives
    socket     where it is spoken to
    live       eight numbers, kept up to date: see `Live`
    end        room for the end, made beforehand so that a full disk cannot lose it; empty until then
    <stream>.<offset>   segments of output

What is said to it is one packet each way (SOCK_SEQPACKET):

    !                            is answered with ! once the process was started
    ? and a number (8 bytes)     is answered once there is more output than that: ! and how it stands, as
                                 in `live`; or at the end: ! alone
    {"do": …}, newline, bytes    an act; answered in JSON, and again so to a repeat of its op
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import pty
import select
import signal
import socket
import struct
import termios
import time
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from runtools.guest import procs, spawn
from runtools.guest.groups import Group, send
from runtools.guest.problems import Problem, invalid
from runtools.guest.spool import Row

LIVE: Final = struct.Struct("<9q")
SEEN: Final = struct.Struct("<q")
END_BYTES: Final = 8192
MAX_INPUT: Final = 64 << 10
MAX_PACKET: Final = MAX_INPUT + 1024
READY: Final = b"!"

_PIECE: Final = 64 << 10
_MOST_PENDING: Final = 256 << 10
_INPUT_SECONDS: Final = 5.0
_MAX_TALKS: Final = 256
_MAX_OPS: Final = 512
_OPS_KEPT: Final = 24  # of an ended process; with its op each takes at most 200 bytes of `end`
_ROUNDS: Final = 8
_KEYS: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP})
_LEFT: Final = select.POLLHUP | select.POLLERR


class _Late:
    """Input that waits for room, and who wants to be told: whoever repeats it waits along."""

    def __init__(self, request: dict[str, Any], data: bytes, fd: int) -> None:
        self.request = request
        self.data = data
        self.deadline = time.monotonic() + _INPUT_SECONDS
        self.fds = [fd]


class Live(NamedTuple):
    """How a process stands, as its holder keeps it in a file."""

    output: int  # offsets of the ends of the streams
    stdout: int
    stderr: int
    taken: int  # bytes of input
    input_open: int
    rows: int
    columns: int
    pid: int  # 0 until it was started
    born: int


def hold(fds: list[int]) -> None:
    """Hold one process until it has ended and nobody has its pipes any more."""
    gc.disable()
    os.setsid()
    _, listener, folder, order = fds
    with open(order, "rb") as file:
        wanted = json.load(file)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    holder = Holder(wanted, socket.socket(fileno=listener), folder)
    try:
        holder.start()
    except Problem as problem:
        holder.note_end({"problem": json.loads(problem.to_json())["error"]})
        return
    holder.run()


class Holder:
    """See the module."""

    def __init__(self, order: dict[str, Any], listener: socket.socket, folder: int) -> None:
        self._order = order
        self._listener = listener
        self._folder = folder
        self._talks: dict[int, socket.socket] = {}
        self._waiting: dict[int, int] = {}  # who wants to hear of output beyond what
        self._late: list[_Late] = []  # in the order in which it came
        self._done: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._group: Group | None = None
        self._rows = {
            name: Row(folder, name, order["keep"]) for name in ("output", "stdout", "stderr")
        }
        self._sources: dict[int, Row | None] = {}
        self._terminal = -1
        self._slave = -1
        self._size = order.get("terminal") or [0, 0]
        self._input = -1
        self._input_open = False
        self._pending = b""
        self._last = b"\n"
        self._taken = 0
        self._poll = select.poll()
        self._child: spawn.Child | None = None
        self._born = 0
        self._state = b""  # what `live` holds
        self._live = os.open("live", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)

    # --- the beginning ---

    def start(self) -> None:
        """Start the process.

        Raises:
            Problem: it was not started.
        """
        order = self._order
        if order["holders"]:
            with contextlib.suppress(OSError):
                _join(order["holders"])
        user = spawn.User(**{**order["user"], "groups": tuple(order["user"]["groups"])})
        if order["group"]:
            self._group = Group(order["group"])
        try:
            fds, theirs, place = self._files(user)
        except OSError as exc:
            raise Problem("unavailable", f"no pipes or terminal for it: {exc.strerror}") from exc
        try:
            self._child = spawn.start(
                order["argv"],
                order["program"],
                order["env"],
                order["cwd"],
                fds,
                user,
                self._group,
                place,
            )
        finally:
            for fd in theirs:
                os.close(fd)
        self._born = procs.born(self._child.pid)
        self._input_open = self._input >= 0 and order["keep_input"]
        self._note_live()

    def _files(self, user: spawn.User) -> tuple[tuple[int, int, int], set[int], str | None]:
        """What it gets as its first three files, which of them we close, and its terminal's place."""
        if self._order.get("terminal"):
            # The inner end is held open, so that the terminal is there as long as the process lives.
            self._terminal, slave = pty.openpty()
            self._input, self._slave = self._terminal, slave
            self._set_size()
            if user.switch:
                os.fchown(slave, user.uid, -1)
            os.set_blocking(self._terminal, False)
            self._sources = {self._terminal: None}
            return (slave, slave, slave), set(), os.ttyname(slave)
        out, out_theirs = os.pipe()
        err, err_theirs = os.pipe()
        self._sources = {out: self._rows["stdout"], err: self._rows["stderr"]}
        if self._order["keep_input"]:
            stdin, self._input = os.pipe()
            os.set_blocking(self._input, False)
        else:
            stdin = os.open("/dev/null", os.O_RDONLY)
        return (stdin, out_theirs, err_theirs), {stdin, out_theirs, err_theirs}, None

    # --- while it lives ---

    def run(self) -> None:
        """Serve until it has ended, then until what it left behind has let go of its pipes."""
        assert self._child is not None  # noqa: S101 - start() came before
        pidfd = self._child.pidfd
        self._poll.register(pidfd, select.POLLIN)
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.POLLIN)
        for fd in self._sources:
            self._poll.register(fd, select.POLLIN)
        if self._input >= 0 and self._terminal < 0:
            self._poll.register(self._input, 0)  # tells when nobody has the other end any more
        ended = False
        while not ended:
            came = False
            for fd, event in self._poll.poll(self._patience()):
                if fd in self._sources and event & (select.POLLIN | _LEFT):
                    came |= self._read(fd)
                elif fd == pidfd:
                    ended = True
                elif fd == self._listener.fileno():
                    self._accept()
                elif fd in self._talks:
                    self._hear(fd)
                if fd == self._input and event & select.POLLERR:
                    self._close_pipe()  # nobody has the other end any more
                elif fd == self._input and event & select.POLLOUT:
                    self._feed()
            if came:
                self._note_live()
                self._tell()
            self._retry()
        self._finish()

    def _patience(self) -> float | None:
        if not self._late:
            return None
        return max(0.0, self._late[0].deadline - time.monotonic()) * 1000 + 1

    def _read(self, fd: int, most: int = _PIECE) -> bool:
        try:
            data = os.read(fd, most)
        except BlockingIOError:
            return False
        except OSError:  # a terminal that was hung up
            data = b""
        if not data:
            self._poll.unregister(fd)
            del self._sources[fd]
            if fd != self._terminal:
                os.close(fd)
            return False
        row = self._sources[fd]
        self._rows["output"].add(data)
        if row is not None:
            row.add(data)
        return True

    def _feed(self) -> None:
        """Give it what it takes of its input."""
        try:
            while self._pending:
                count = os.write(self._input, self._pending[:_PIECE])
                self._pending = self._pending[count:]
        except BlockingIOError:
            pass
        except OSError:  # nobody will ever read it
            self._pending, self._input_open = b"", False
        more = select.POLLOUT if self._pending else 0
        if self._terminal < 0 and not more and not self._input_open:
            self._close_pipe()
        elif self._terminal < 0:
            self._poll.register(self._input, more)
        elif self._terminal in self._sources:
            self._poll.register(self._terminal, select.POLLIN | more)

    def _close_pipe(self) -> None:
        """The end of its input."""
        if self._terminal < 0:
            self._pending, self._input_open = b"", False
            self._poll.unregister(self._input)
            os.close(self._input)
            self._input = -1
            self._note_live()

    # --- those who speak to it ---

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it went before it was its turn
        if len(self._talks) >= _MAX_TALKS:
            sock.close()
            return
        sock.setblocking(False)
        self._talks[sock.fileno()] = sock
        self._poll.register(sock, select.POLLIN)

    def _hear(self, fd: int) -> None:
        try:
            said = self._talks[fd].recv(MAX_PACKET + 1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._drop(fd)
        elif said == READY:
            self._say(fd, READY)
        elif said[:1] == b"?":
            (seen,) = SEEN.unpack(said[1:])
            if self._rows["output"].end > seen:
                self._say(fd, READY + self._state)
            else:
                self._waiting[fd] = seen
        else:
            head, _, data = said.partition(b"\n")
            self._act(fd, json.loads(head), data)

    def _say(self, fd: int, answer: bytes) -> None:
        try:
            self._talks[fd].send(answer)
        except OSError:  # it went, or asks without end and never listens
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        self._waiting.pop(fd, None)
        for late in self._late:
            late.fds = [each for each in late.fds if each != fd]
        self._late = [late for late in self._late if late.fds]
        self._poll.unregister(fd)
        self._talks.pop(fd).close()

    def _tell(self, *, over: bool = False) -> None:
        """Wake those who wait for output, or for the end."""
        end = self._rows["output"].end
        news = READY if over else READY + self._state
        for fd, seen in list(self._waiting.items()):
            if over or end > seen:
                del self._waiting[fd]
                self._say(fd, news)

    # --- acts ---

    def _act(self, fd: int, request: dict[str, Any], data: bytes) -> None:
        """Do an act once; ``op`` names it, ``key`` tells whether a repeat is one."""
        op, key = request["op"], request["key"]
        known = self._done.get(op)
        late = next((late for late in self._late if late.request["op"] == op), None)
        if known is not None:
            self._say(fd, known[1] if known[0] == key else _mismatch(op).to_json())
            return
        if late is not None:
            if late.request["key"] == key:
                late.fds.append(fd)
            else:
                self._say(fd, _mismatch(op).to_json())
            return
        try:
            if request["do"] == "input":
                if not self._take(data):
                    self._late.append(_Late(request, data, fd))
                    return
            else:
                self._do(request)
        except Problem as problem:
            self._say(fd, problem.to_json())
            return
        self._answer([fd], request)

    def _answer(self, fds: list[int], request: dict[str, Any]) -> None:
        answer = b'{"ok":{"taken":%d}}' % self._taken
        self._done[request["op"]] = (request["key"], answer)
        if len(self._done) > _MAX_OPS:
            self._done.popitem(last=False)
        self._note_live()
        for fd in fds:
            self._say(fd, answer)

    def _take(self, data: bytes) -> bool:
        """Take input whole; False when there is no room for it now."""
        if not self._input_open:
            raise Problem("input_closed", "its input is closed")
        if self._late or len(self._pending) + len(data) > _MOST_PENDING:
            return False
        self._accept_input(data)
        return True

    def _accept_input(self, data: bytes) -> None:
        self._taken += len(data)
        self._pending += data
        self._last = data[-1:] or self._last
        self._feed()

    def _retry(self) -> None:
        """Take the input that waited for room, in its order; refuse what waited too long."""
        while self._late:
            late = self._late[0]
            if not self._input_open:
                problem = Problem("input_closed", "its input was closed")
            elif len(self._pending) + len(late.data) <= _MOST_PENDING:
                self._late.pop(0)
                self._accept_input(late.data)
                self._answer(late.fds, late.request)
                continue
            elif late.deadline <= time.monotonic():
                problem = Problem(
                    "input_full",
                    "it does not read its input: none of these bytes was taken",
                    hint="try again when it reads",
                )
            else:
                return
            self._late.pop(0)
            for fd in late.fds:
                self._say(fd, problem.to_json())

    def _do(self, request: dict[str, Any]) -> None:
        if request["do"] == "close":
            self._close_input()
        elif request["do"] == "signal":
            self._signal(request["signal"])
        elif self._terminal < 0:
            raise invalid("it has no terminal")
        else:
            self._size = [request["rows"], request["columns"]]
            self._set_size()

    def _close_input(self) -> None:
        if not self._input_open:
            return
        self._input_open = False
        if self._terminal >= 0:
            # In the middle of a line the first one only hands over what there is of it.
            key = termios.tcgetattr(self._terminal)[6][termios.VEOF]
            self._pending += key if self._last in b"\r\n" else key * 2
        self._feed()

    def _set_size(self) -> None:
        rows, columns = self._size
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def _signal(self, number: int) -> None:
        assert self._child is not None  # noqa: S101 - it was started
        if os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return  # it has ended a moment ago: what its group is now is not ours to say
        if number in _KEYS and self._terminal >= 0:
            foreground = os.tcgetpgrp(self._terminal)
            if foreground > 1:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(foreground, number)
                return
        send(self._group, self._child.pid, number)

    # --- the end ---

    def _finish(self) -> None:
        """Take what is there, write down how it ended, and let everybody know."""
        assert self._child is not None  # noqa: S101 - it was started
        for fd in list(self._sources):
            self._read_rest(fd)
        self._pending, self._input_open = b"", False
        self._note_live()
        status = self._child.reap()
        kept = list(self._done.items())[-_OPS_KEPT:]
        self.note_end(
            {
                "exit_code": status if status >= 0 else None,
                "signal": -status if status < 0 else None,
                "at": time.time(),
                "ops": {op: [key, answer.decode()] for op, (key, answer) in kept},
            }
        )
        self._listener.close()
        self._tell(over=True)
        for row in self._rows.values():
            row.close()
        for sock in self._talks.values():
            sock.close()
        for fd in {self._terminal, self._slave, self._input} - {-1}:
            os.close(fd)
        self._drain({fd for fd in self._sources if fd != self._terminal})

    def _read_rest(self, fd: int) -> None:
        """Read what is there now, and no more: others may go on writing."""
        if fd == self._terminal:
            for _ in range(_ROUNDS):  # more than a terminal holds
                if not self._read(fd):
                    return
            return
        waiting = bytearray(4)
        fcntl.ioctl(fd, termios.FIONREAD, waiting)
        left = int.from_bytes(waiting, "little")
        while left > 0 and fd in self._sources:
            self._read(fd, min(left, _PIECE))
            left -= _PIECE

    def _drain(self, left: set[int]) -> None:
        """Nobody whom it left behind is to die of a closed pipe, or to wait for a full one."""
        poll = select.poll()
        for fd in left:
            poll.register(fd, select.POLLIN)
        while left:
            for fd, _ in poll.poll():
                if not os.read(fd, _PIECE):
                    poll.unregister(fd)
                    left.discard(fd)

    # --- what it writes ---

    def _note_live(self) -> None:
        rows = self._rows
        stdout = rows["output"] if self._terminal >= 0 else rows["stdout"]
        self._state = LIVE.pack(  # in the order of `Live`
            rows["output"].end,
            stdout.end,
            rows["stderr"].end,
            self._taken,
            self._input_open,
            *self._size,
            0 if self._child is None else self._child.pid,
            self._born,
        )
        os.pwrite(self._live, self._state, 0)

    def note_end(self, end: dict[str, Any]) -> None:
        """Write down how it ended, where room was made for it."""
        text = json.dumps(end).encode()
        try:
            fd = os.open("end", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return  # somebody inside removed it: there is nobody to be told
        try:
            os.pwrite(fd, text[:END_BYTES], 0)
            with contextlib.suppress(OSError):
                os.fsync(fd)
        finally:
            os.close(fd)


def _join(group: str) -> None:
    fd = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def _mismatch(op: str) -> Problem:
    return Problem(
        "idempotency_mismatch",
        f"{op} was used for another request",
        hint="give every request an id of its own",
    )
