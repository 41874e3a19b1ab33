"""Running a command to its end: bounded output, a deadline that kills all that it forked, its answer.

One thread watches one command: its two pipes, its stdin and its pidfd in one poll. The answer is due
when the command's own process ends; what its pipes hold at that moment is part of it, what is written
later by others goes to the `Drain`.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runtools.guest import procs, protocol, spawn
from runtools.guest.drain import Drain
from runtools.guest.groups import Group, Groups, send
from runtools.guest.paths import Root
from runtools.guest.pipes import PIECE, Feed, Pipe
from runtools.guest.problems import invalid, whole

_KILL_SECONDS: Final = 10.0
_PLAIN_ENV: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True, slots=True)
class Order:
    """A command as it was asked for, checked."""

    argv: Sequence[str]
    program: str | None  # None: to be looked for in PATH
    env: Mapping[str, str]
    cwd: str
    user: str
    timeout: float
    keep: int
    stdin: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it printed."""

    exit_code: int | None
    signal: int | None
    duration_ms: float
    timed_out: bool
    truncated: bool
    stdout: bytes
    stderr: bytes


def owner(op: str) -> str:
    """Whose the group of a command is, as the group itself says."""
    return f"exec {op}"


class Execs:
    """All commands of one agent."""

    def __init__(self, root: Root, groups: Groups | None) -> None:
        self.env: dict[str, str] = {}  # the sandbox's own, merged into every command's
        self.output_bytes = 0
        self._root = root
        self._groups = groups
        self._lock = threading.Lock()
        self._running = 0
        self._living: dict[str, tuple[int, Group | None]] = {}  # by the id of the command
        self._budget = _memory_total() // 8  # kept output of all commands that run at once
        self._drain = Drain()
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        bash = "/bin/bash"
        self._shell = bash if os.access(bash, os.X_OK) else "/bin/sh"

    @property
    def kills_by(self) -> str:
        """``cgroup``: nothing escapes a timeout; ``session``: what leaves session and parent does."""
        return "session" if self._groups is None else "cgroup"

    def running(self) -> int:
        """How many commands run."""
        return self._running

    def total_output(self) -> int:
        """Bytes that all commands ever printed, those left behind included."""
        return self.output_bytes + self._drain.bytes

    def order(self, request: Mapping[str, Any], stdin: bytes) -> Order:
        """Check a request.

        Raises:
            Problem: ``invalid_request`` or ``invalid_path``.
        """
        command = request.get("command")
        if isinstance(command, str):
            argv: Sequence[str] = (self._shell, "-c", "--", command)
            program = self._shell
        elif isinstance(command, list) and command and all(isinstance(w, str) for w in command):
            argv, program = command, None
        else:
            raise invalid("command must be a line of text or a list of words")
        env = request.get("env") or {}
        if not isinstance(env, dict) or not all(isinstance(v, str) for v in env.values()):
            raise invalid("env must map names to texts")
        if any("\0" in text for text in (*argv, *env, *env.values())):
            raise invalid("a NUL can stand neither in a word nor in the environment")
        return Order(
            argv=argv,
            program=program,
            env=env,
            cwd=self._root.path(request.get("cwd", "/workspace")),
            user=str(request.get("user", "root")),
            timeout=whole(request, "timeout_ms", 30_000) / 1000,
            keep=min(whole(request, "max_output", protocol.MAX_OUTPUT), protocol.MAX_OUTPUT),
            stdin=stdin,
        )

    def resolve(self, order: Order) -> tuple[spawn.User, dict[str, str], str]:
        """As whom, with which environment and which program a command is to run here.

        Raises:
            Problem: there is no such user or program.
        """
        user = self._user(order.user)
        env = self._environment(order, user)
        return user, env, order.program or spawn.find_program(order.argv[0], env, order.cwd)

    def take_group(self, owner: str) -> Group | None:
        """Where a command will live; `run` or `free_group` gives it back."""
        return None if self._groups is None else self._groups.take(owner)

    def free_group(self, group: Group | None) -> None:
        """Give back a group without having run a command in it."""
        if self._groups is not None and group is not None:
            self._groups.give_back(group)

    def claim_group(self, path: str, owner: str) -> Group | None:
        """The group of a command from before this agent's start; it is the caller's to free."""
        return None if self._groups is None else self._groups.claim(path, owner)

    @property
    def holders(self) -> str:
        """The control group for the holders of durable processes; empty where there are none."""
        return "" if self._groups is None else self._groups.holders

    def signal(self, op: str, number: int) -> bool:
        """Send a signal to a running command and all that it started; False: none runs under the id."""
        with self._lock:  # so that the pid stays its own meanwhile
            pid, group = self._living.get(op, (0, None))
            if pid:
                send(group, pid, number)
            return pid != 0

    def run(
        self, op: str, order: Order, group: Group | None, started: Callable[[int], None]
    ) -> Ended:
        """Run a command to its end under an id; ``started`` is told its pid.

        Raises:
            Problem: it was not started.
        """
        began = time.monotonic()
        try:
            child, out, err, feed = self._start(order, group)
            with self._lock:
                self._running += 1
                self._living[op] = child.pid, group
            watch = _Watch(self, child, out, err, feed, group)
            timed_out, status = self._see_through(op, watch, began + order.timeout, started)
        finally:
            self.free_group(group)
        return Ended(
            exit_code=status if status is not None and status >= 0 else None,
            signal=-status if status is not None and status < 0 else None,
            duration_ms=(time.monotonic() - began) * 1000,
            timed_out=timed_out,
            truncated=out.truncated or err.truncated,
            stdout=b"".join(out.parts),
            stderr=b"".join(err.parts),
        )

    def _see_through(
        self, op: str, watch: _Watch, deadline: float, started: Callable[[int], None]
    ) -> tuple[bool, int | None]:
        """Whether a command had to be killed, and how it ended, where that was seen."""
        try:
            try:
                started(watch.child.pid)
            except BaseException:
                watch.until(0.0)  # its caller is told otherwise: nothing of it goes on
                raise
            timed_out = watch.until(deadline)
        finally:
            with self._lock:
                del self._living[op]
                self._running -= 1
                self._budget += watch.kept
            status = watch.child.reap() if watch.ended else None
        return timed_out, status

    def leave(self, pipe: Pipe) -> None:
        """Somebody else still holds the other end of the pipe."""
        self._drain.adopt(pipe.fd)

    def _start(self, order: Order, group: Group | None) -> tuple[spawn.Child, Pipe, Pipe, Feed]:
        user, env, program = self.resolve(order)
        fds: list[int] = []
        try:
            out_r, out_w = _pipe(fds)
            err_r, err_w = _pipe(fds)
            in_r, in_w = _pipe(fds) if order.stdin else (self._null, -1)
            child = spawn.start(
                order.argv, program, env, order.cwd, (in_r, out_w, err_w), user, group
            )
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        os.close(out_w)
        os.close(err_w)
        if order.stdin:
            os.close(in_r)
            os.set_blocking(in_w, False)
        keep = self._promise(order.keep)
        return child, Pipe(out_r, keep), Pipe(err_r, keep), Feed(in_w, memoryview(order.stdin))

    def _promise(self, wanted: int) -> int:
        """How much of each stream may be kept, so that many commands cannot fill the memory."""
        with self._lock:
            keep = min(wanted, max(self._budget // 4, PIECE))
            self._budget -= 2 * keep
            return keep

    def _user(self, name: str) -> spawn.User:
        if name == "root" and not self._root.real and os.geteuid() != 0:
            # In a stand-in without privileges its own user is what root is in a machine.
            mine, group = os.geteuid(), os.getegid()
            return spawn.User("root", mine, group, (), self._root.own("/root"), self._shell, False)
        return spawn.find_user(name)

    def _environment(self, order: Order, user: spawn.User) -> dict[str, str]:
        env = dict(_PLAIN_ENV)
        home = user.home if self._root.real else self._root.own(user.home)
        env.update(HOME=home, USER=user.name, LOGNAME=user.name, SHELL=user.shell or self._shell)
        env.update(self.env)
        env.update(order.env)
        return env


class _Watch:
    """The life of one started command."""

    def __init__(
        self,
        execs: Execs,
        child: spawn.Child,
        out: Pipe,
        err: Pipe,
        feed: Feed,
        group: Group | None,
    ) -> None:
        self.ended = False
        self.child = child
        self.kept = out.keep + err.keep
        self._execs = execs
        self._pipes = {out.fd: out, err.fd: err}
        self._feed = feed
        self._group = group
        self._poll = select.poll()
        self._poll.register(child.pidfd, select.POLLIN)
        for fd in self._pipes:
            self._poll.register(fd, select.POLLIN)

    def until(self, deadline: float) -> bool:
        """Wait for the end; kill everything at the deadline. Returns whether that was necessary."""
        if self._feed.fd >= 0 and self._feed.write():
            self._poll.register(self._feed.fd, select.POLLOUT)
        elif self._feed.fd >= 0:
            self._feed.close()
        self._wait(deadline)
        timed_out = not self.ended
        if timed_out:
            self._kill()
            self._wait(time.monotonic() + _KILL_SECONDS)
        self._feed.close()
        for pipe in self._pipes.values():
            self._finish(pipe)
        return timed_out

    def _wait(self, deadline: float) -> None:
        pidfd = self.child.pidfd
        while not self.ended:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for fd, _ in self._poll.poll(left * 1000 + 1):
                if fd == pidfd:
                    self.ended = True
                elif fd == self._feed.fd:
                    if not self._feed.write():
                        self._poll.unregister(fd)
                        self._feed.close()
                else:
                    self._read(self._pipes[fd])

    def _read(self, pipe: Pipe) -> None:
        count = pipe.read()
        self._execs.output_bytes += count
        if not count:
            pipe.open = False
            self._poll.unregister(pipe.fd)

    def _finish(self, pipe: Pipe) -> None:
        if not pipe.open:
            os.close(pipe.fd)
            return
        self._execs.output_bytes += pipe.read_rest()
        state = select.poll()
        state.register(pipe.fd, select.POLLIN)
        if [event for _, event in state.poll(0)] == [select.POLLHUP]:
            os.close(pipe.fd)
        else:
            self._execs.leave(pipe)

    def _kill(self) -> None:
        if self._group is not None:
            self._group.kill()
        else:
            procs.kill_session(self.child.pid)


def _pipe(made: list[int]) -> tuple[int, int]:
    ends = os.pipe2(os.O_CLOEXEC)
    made.extend(ends)
    return ends


def _memory_total() -> int:
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) << 10
