"""Control groups (v2) for commands: each runs in one of its own, so that all it forked can be killed.

    <base>/agent        the agent itself, when the base is its own delegated group
    <base>/execs        bounds for all commands together: processes, memory
    <base>/execs/<n>    one command and what it left behind
    <base>/execs/holders  the holders of durable processes: not killed with what they hold

A group is made before it is needed and used again once nothing lives in it, so its path alone does not
say whose it is: its owner's name stands on it (an extended attribute of its folder, gone with the boot).
An agent that comes after another claims a group by both. Memory is bounded by what the machine has beside
what it needs itself, so that commands which take too much meet an end inside ``execs``: the agent, outside
of it, is never the victim, and goes on answering. Processor time is shared by commands, not by processes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from typing import Final

from runtools.guest import procs

_SPARE: Final = 2
# What the agent and the system's own services take, with the pages of their programs.
_MEMORY_RESERVE: Final = 96 << 20
_POPULATED: Final = b"populated 1"
_OWNER: Final = "user.runtools.owner"


class Group:
    """One group of processes."""

    __slots__ = ("_events", "fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._events = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)

    def give_to(self, owner: str) -> None:
        """Write whose it is from now on."""
        os.setxattr(self.fd, _OWNER, owner.encode())

    def belongs_to(self, owner: str) -> bool:
        """Whether it was given to nobody else since."""
        try:
            return os.getxattr(self.fd, _OWNER) == owner.encode()
        except OSError:  # nobody ever had it
            return False

    def is_populated(self) -> bool:
        """Whether a process lives in it."""
        return _POPULATED in os.pread(self._events, 256, 0)

    def kill(self) -> None:
        """Kill every process in it, also those that are just being forked."""
        fd = os.open("cgroup.kill", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)

    def members(self) -> set[int]:
        """The processes in it."""
        fd = os.open("cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        with open(fd, "rb") as file:
            return set(map(int, file.read().split()))

    def joining(self) -> int:
        """An open file: a process that writes 0 to it joins."""
        return os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)


class Groups:
    """The groups of one agent's commands."""

    def __init__(self, base: str) -> None:
        self._folder = f"{base}/execs"
        self._lock = threading.Lock()
        self._free: list[Group] = []
        self._left: list[Group] = []  # something that a command left behind lives in it
        self.holders = f"{self._folder}/holders"
        os.makedirs(self.holders, exist_ok=True)
        self._bound()
        names = [n for n in os.listdir(self._folder) if n.isdigit()]
        for name in names:
            self.give_back(Group(f"{self._folder}/{name}"))
        self._numbers = itertools.count(max(map(int, names), default=0) + 1)
        while len(self._free) < _SPARE:
            self._free.append(self._make())

    def take(self, owner: str) -> Group:
        """An empty group, which bears its owner's name until it is another's."""
        with self._lock:
            if not self._free:
                self._sort_out()
            group = self._free.pop() if self._free else self._make()
        try:
            group.give_to(owner)
        except BaseException:
            self.give_back(group)
            raise
        return group

    def give_back(self, group: Group) -> None:
        """The command in it has ended; others may still live there."""
        populated = group.is_populated()
        with self._lock:
            (self._left if populated else self._free).append(group)

    def claim(self, path: str, owner: str) -> Group | None:
        """The group that an agent before this one took for somebody, to be given back by the caller.

        None: it is gone, or is another's by now.
        """
        with self._lock:
            for groups in (self._left, self._free):
                for group in groups:
                    if group.path == path and group.belongs_to(owner):
                        groups.remove(group)
                        return group
        return None

    def _sort_out(self) -> None:
        left, self._left = self._left, []
        for group in left:
            (self._left if group.is_populated() else self._free).append(group)

    def _make(self) -> Group:
        path = f"{self._folder}/{next(self._numbers)}"
        os.mkdir(path)
        # One command that forks without end must leave room for others to be started.
        _put(f"{path}/pids.max", str(self._leaf_pids))
        return Group(path)

    def _bound(self) -> None:
        threads = int(_get("/proc/sys/kernel/threads-max"))
        self._leaf_pids = max(threads * 2 // 5, 64)
        base = os.path.dirname(self._folder)
        for controller in ("pids", "memory", "cpu"):
            _put(f"{base}/cgroup.subtree_control", f"+{controller}")
        # Each command has its share of the processors, however many processes it is.
        for controller in ("pids", "cpu"):
            _put(f"{self._folder}/cgroup.subtree_control", f"+{controller}")
        _put(f"{self.holders}/cpu.weight", "10000")
        _put(f"{self._folder}/pids.max", str(threads * 4 // 5))
        total = int(_get("/proc/meminfo").split()[1]) << 10
        reserve = _MEMORY_RESERVE + (int(_get("/proc/sys/vm/min_free_kbytes")) << 10)
        _put(f"{self._folder}/memory.max", str(max(total - reserve, total // 2)))
        _put(f"{base}/agent/cpu.weight", "10000")


def send(group: Group | None, leader: int, number: int) -> None:
    """Send a signal to a command and all that it started, by its group where it has one."""
    if group is None:
        procs.tell(lambda: procs.family(leader), number)
    elif number == signal.SIGKILL:
        group.kill()
    else:
        procs.tell(group.members, number)


def open_groups(where: str) -> Groups | None:
    """Groups below the folder ``where``; ``own`` means below the agent's own, ``none`` none at all.

    None where the system gives no writable control groups: commands are then killed by session.
    """
    if where == "none":
        return None
    base = _own_base() if where == "own" else where
    if base is None:
        return None
    try:
        return Groups(base)
    except OSError:
        return None


def _own_base() -> str | None:
    """The delegated group that the agent was started in; the agent moves to a leaf of it."""
    mount = next((line.split()[1] for line in _lines("/proc/mounts") if " cgroup2 " in line), None)
    mine = next((line[3:] for line in _lines("/proc/self/cgroup") if line.startswith("0::")), "/")
    if mount is None or mine == "/":  # the root is nobody's to delegate
        return None
    base = mount + mine
    if base.endswith("/agent"):
        return base.removesuffix("/agent")
    try:
        os.makedirs(f"{base}/agent", exist_ok=True)
    except OSError:
        return None
    return base if _put(f"{base}/agent/cgroup.procs", "0") else None


def _put(path: str, text: str) -> bool:
    """Write a setting; False where this kernel or delegation does not offer it."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        return True
    return False


def _get(path: str) -> str:
    with open(path) as file:
        return file.read()


def _lines(path: str) -> list[str]:
    return _get(path).splitlines()
