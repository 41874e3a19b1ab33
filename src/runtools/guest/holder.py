"""The holder of one durable process: its parent, its pipes or terminal, and the one that sees its end.

It is forked by the cradle with four open files: the lock that says that it lives, the socket on which the
agent speaks to it (`packets`), the folder of the process, and the order. It spools what the process prints
(`spool`), feeds it what it is sent (`intake`), and writes down how it ended. Nothing of that needs the
agent, which may die and come back meanwhile.

    lock       locked as long as the holder lives
    socket     where it is spoken to
    live       nine numbers, kept up to date: see `packets.Live`
    end        room for the end, made beforehand so that a full disk cannot lose it; empty until then
    <stream>.<offset>   segments of output
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import termios
import time
from typing import Any, Final

from runtools.guest import procs, spawn, stdio
from runtools.guest.acts import Acts
from runtools.guest.groups import Group, send
from runtools.guest.intake import Intake
from runtools.guest.packets import END_BYTES, LIVE
from runtools.guest.problems import Problem, invalid
from runtools.guest.spool import Row
from runtools.guest.talks import Talks

_PIECE: Final = 64 << 10
_ROUNDS: Final = 8
_KEYS: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP})
_LEFT: Final = select.POLLHUP | select.POLLERR


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
        told = problem.within(END_BYTES - len('{"problem": }'))
        holder.note_end({"problem": json.loads(told.to_json())["error"]})
        return
    holder.run()


class Holder:
    """See the module."""

    _group: Group | None
    _files: stdio.Stdio
    _child: spawn.Child
    _sources: dict[int, Row | None]
    _intake: Intake
    _acts: Acts

    def __init__(self, order: dict[str, Any], listener: socket.socket, folder: int) -> None:
        self._order = order
        self._folder = folder
        self._poll = select.poll()
        self._talks = Talks(listener, self._poll, self._act)
        self._rows = {
            name: Row(folder, name, order["keep"]) for name in ("output", "stdout", "stderr")
        }
        self._size = order.get("terminal") or [0, 0]
        self._live = os.open("live", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)

    # --- the beginning ---

    def start(self) -> None:
        """Start the process.

        Raises:
            Problem: it was not started.
        """
        order, poll = self._order, self._poll
        if order["holders"]:
            with contextlib.suppress(OSError):
                _join(order["holders"])
        user = spawn.User(**{**order["user"], "groups": tuple(order["user"]["groups"])})
        self._group = Group(order["group"]) if order["group"] else None
        try:
            files = self._files = stdio.make(order, user)
        except OSError as exc:
            raise Problem("unavailable", f"no pipes or terminal for it: {exc.strerror}") from exc
        try:
            self._child = spawn.start(
                order["argv"],
                order["program"],
                order["env"],
                order["cwd"],
                files.theirs,
                user,
                self._group,
                files.place,
            )
        finally:
            files.handed_over()
        _spare_me()  # after the start: the process would inherit it
        self._born = procs.born(self._child.pid)
        self._sources = {fd: self._rows.get(name) for fd, name in files.sources.items()}
        is_open = files.input >= 0 and order["keep_input"]
        self._intake = Intake(files.input, poll, terminal=files.terminal >= 0, is_open=is_open)
        self._acts = Acts(self._intake, self._perform, self._note_live, self._talks.answer)
        self._note_live()

    # --- while it lives ---

    def run(self) -> None:
        """Serve until it has ended, then until what it left behind has let go of its pipes."""
        pidfd = self._child.pidfd
        self._poll.register(pidfd, select.POLLIN)
        self._talks.open()
        for fd in self._sources:
            self._poll.register(fd, select.POLLIN)
        ended = False
        while not ended:
            changed = False
            for fd, event in self._poll.poll(self._acts.patience()):
                ended |= fd == pidfd
                if fd in self._sources and event & (select.POLLIN | _LEFT):
                    changed |= self._read(fd)
                self._talks.heard(fd)
                if fd == self._intake.fd and event & (select.POLLOUT | select.POLLERR):
                    self._intake.heard(event)
                    changed = True
            if changed:
                self._note_live()
                self._talks.tell()
            self._acts.retry()
        self._finish()

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
            if fd == self._files.terminal:
                self._intake.hang_up()
            else:
                os.close(fd)
            return False
        row = self._sources[fd]
        self._rows["output"].add(data)
        if row is not None:
            row.add(data)
        return True

    # --- acts ---

    def _act(self, sock: socket.socket, request: dict[str, Any], data: bytes) -> None:
        self._acts.act(sock, request, data)

    def _perform(self, request: dict[str, Any]) -> None:
        if request["do"] == "signal":
            self._signal(request["signal"])
        elif self._files.terminal < 0:
            raise invalid("it has no terminal")
        else:
            self._size = [request["rows"], request["columns"]]
            stdio.set_size(self._files.terminal, self._size)

    def _signal(self, number: int) -> None:
        if os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return  # it has ended a moment ago: what its group is now is not ours to say
        if number in _KEYS and self._files.terminal >= 0:
            foreground = os.tcgetpgrp(self._files.terminal)
            if foreground > 1:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(foreground, number)
                return
        send(self._group, self._child.pid, number)

    # --- the end ---

    def _finish(self) -> None:
        """Take what is there, write down how it ended, and let everybody know."""
        for fd in list(self._sources):
            self._read_rest(fd)
        self._intake.end()
        self._note_live()
        status = self._child.reap()
        self.note_end(
            {
                "exit_code": status if status >= 0 else None,
                "signal": -status if status < 0 else None,
                "at": time.time(),
                "ops": self._acts.kept(),
            }
        )
        self._talks.close()
        for row in self._rows.values():
            row.close()
        self._files.hang_up()
        _drain({fd for fd in self._sources if fd != self._files.terminal})

    def _read_rest(self, fd: int) -> None:
        """Read what is there now, and no more: others may go on writing."""
        if fd == self._files.terminal:
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

    # --- what it writes ---

    def _note_live(self) -> None:
        rows = self._rows
        stdout = rows["output"] if self._files.terminal >= 0 else rows["stdout"]
        state = LIVE.pack(  # in the order of `Live`
            rows["output"].end,
            stdout.end,
            rows["stderr"].end,
            self._intake.taken,
            self._intake.is_open,
            *self._size,
            self._child.pid,
            self._born,
        )
        os.pwrite(self._live, state, 0)
        self._talks.note(state)

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


def _drain(left: set[int]) -> None:
    """Nobody whom it left behind is to die of a closed pipe, or to wait for a full one."""
    poll = select.poll()
    for fd in left:
        poll.register(fd, select.POLLIN)
    while left:
        for fd, _ in poll.poll():
            if not os.read(fd, _PIECE):
                poll.unregister(fd)
                left.discard(fd)


def _spare_me() -> None:
    """Where memory is short the kernel is to end what is held, and never who would tell of that end."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")


def _join(group: str) -> None:
    fd = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)
