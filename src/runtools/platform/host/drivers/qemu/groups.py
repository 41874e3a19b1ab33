"""Control groups of VMMs: what each may take of the machine, and who belongs to it.

    <hierarchy>/runtools-<install>/<uid>      one for each VMM, with its holder in it

Under version 1 that is so in each of the hierarchies of memory, cpu and pids; under version 2 there is
one hierarchy for all. Version 2 is written to the kernel's documents and tried inside a sandbox, whose
kernel has it, not on a machine that has it: `doctor` and docs/security.md say so.

No process can leave its group: it sees none of these files. So a group that can be removed is the
kernel's word that nothing of a VMM is left, whatever the VMM did.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from runtools.platform.kit import process

log = logging.getLogger(__name__)

CONTROLLERS = ("memory", "cpu", "pids")

_MOUNTS = Path("/proc/self/mountinfo")
_PERIOD_US = 100_000
_SHARES = 1024  # version 1's weight of one CPU's worth of work
_WEIGHT, _MOST_WEIGHT = 100, 10_000  # the same of version 2
_MOST_SHARES = 262_144
# Not there where the kernel does not count swap.
_SWAP = {1: "memory.memsw.limit_in_bytes", 2: "memory.swap.max"}
_EVENTS = {
    1: ("memory.oom_control", "memory.limit_in_bytes"),
    2: ("memory.events", "memory.max"),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one VMM may take.

    Attributes:
        memory_bytes: its own memory, and pages of files that it used; what goes beyond is not
            swapped out.
        vcpus: its weight against other VMMs. It may take one CPU more than these for its devices.
        pids: processes and threads.
    """

    memory_bytes: int
    vcpus: int
    pids: int


@dataclass(frozen=True, slots=True)
class Mounted:
    """The hierarchies of a machine: the folder of each controller that can be used."""

    version: Literal[1, 2]
    controllers: Mapping[str, Path]


def mounted(mountinfo: str) -> Mounted:
    """Read from what the kernel says of mounts. Version 2 is used where it has any of ours."""
    first: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        at = Path(left.split()[4].encode().decode("unicode_escape"))
        kind, _, options = right.split(maxsplit=2)
        if kind == "cgroup2":
            second = _of_version_2(at)
            if second:
                return Mounted(2, second)
        elif kind == "cgroup":
            for controller in set(CONTROLLERS) & set(options.split(",")):
                first.setdefault(controller, at)
    return Mounted(1, {name: first[name] for name in CONTROLLERS if name in first})


def _of_version_2(at: Path) -> dict[str, Path]:
    try:
        words = (at / "cgroup.controllers").read_text().split()
    except OSError:
        return {}
    return {name: at for name in CONTROLLERS if name in words}


def of_this_machine() -> Mounted:
    """The hierarchies that can be used here: mounted, and ours to write."""
    found = mounted(_MOUNTS.read_text())
    usable = {name: at for name, at in found.controllers.items() if os.access(at, os.W_OK)}
    return Mounted(found.version, usable)


class Groups:
    """The groups of one installation's VMMs. Without a usable hierarchy it bounds and knows nothing."""

    def __init__(self, install_id: str, found: Mounted) -> None:
        self._name = f"runtools-{install_id}"
        self._found = found
        self._prepared = False

    @property
    def usable(self) -> bool:
        """Whether VMMs are in groups here."""
        return bool(self._found.controllers)

    @property
    def _tops(self) -> Mapping[str, Path]:
        return {name: at / self._name for name, at in self._found.controllers.items()}

    def _folders(self, uid: int) -> list[Path]:
        # One hierarchy may carry several controllers.
        return [top / str(uid) for top in dict.fromkeys(self._tops.values())]

    def make(self, uid: int, limits: Limits) -> None:
        """Make the groups of a VMM that is about to be started.

        Raises:
            OSError: they cannot be made.
        """
        if not self._prepared:
            self._prepare()
        for folder in self._folders(uid):
            folder.mkdir(exist_ok=True)
        for controller, top in self._tops.items():
            for file, value in self._values(controller, limits).items():
                (top / str(uid) / file).write_text(value)
        if "memory" in self._tops:
            self._keep_from_swap(self._tops["memory"] / str(uid), limits)

    def _keep_from_swap(self, folder: Path, limits: Limits) -> None:
        """Bound memory and swap together by what memory may be: else what does not fit goes to swap."""
        file = folder / _SWAP[self._found.version]
        if file.exists():
            file.write_text("0" if self._found.version == 2 else str(limits.memory_bytes))

    def _prepare(self) -> None:
        for top in dict.fromkeys(self._tops.values()):
            top.mkdir(exist_ok=True)
        cpus = os.cpu_count() or 1
        if self._found.version == 2:
            wanted = " ".join(f"+{name}" for name in self._found.controllers)
            for top in dict.fromkeys(self._tops.values()):
                (top.parent / "cgroup.subtree_control").write_text(wanted)
                (top / "cgroup.subtree_control").write_text(wanted)
            if "cpu" in self._tops:
                weight = min(_WEIGHT * cpus, _MOST_WEIGHT)
                (self._tops["cpu"] / "cpu.weight").write_text(str(weight))
        elif "cpu" in self._tops:
            # All VMMs together weigh as much as a busy process on each CPU, so the host's parts are
            # answered however many VMMs are busy.
            shares = min(_SHARES * cpus, _MOST_SHARES)
            (self._tops["cpu"] / "cpu.shares").write_text(str(shares))
        self._prepared = True

    def _values(self, controller: str, limits: Limits) -> Mapping[str, str]:
        quota = (limits.vcpus + 1) * _PERIOD_US
        memory, pids = str(limits.memory_bytes), {"pids.max": str(limits.pids)}
        if self._found.version == 2:
            weight = min(_WEIGHT * limits.vcpus, _MOST_WEIGHT)
            return {
                "memory": {"memory.max": memory},
                "cpu": {"cpu.max": f"{quota} {_PERIOD_US}", "cpu.weight": str(weight)},
                "pids": pids,
            }[controller]
        shares = min(_SHARES * limits.vcpus, _MOST_SHARES)
        return {
            "memory": {"memory.limit_in_bytes": memory},
            "cpu": {
                "cpu.cfs_period_us": str(_PERIOD_US),
                "cpu.cfs_quota_us": str(quota),
                "cpu.shares": str(shares),
            },
            "pids": pids,
        }[controller]

    def join(self, uid: int) -> None:
        """Move the calling thread, so that what it starts begins in the groups. Version 1 alone.

        A thread that moves itself waits for nobody, which a process that is moved does.
        """
        if self._found.version == 1:
            for folder in self._folders(uid):
                (folder / "tasks").write_text("0")

    def admit(self, uid: int, pid: int) -> None:
        """Move a process that waits to be let begin. Version 2, which moves no single thread."""
        if self._found.version == 2:
            for folder in self._folders(uid):
                (folder / "cgroup.procs").write_text(str(pid))

    def there(self, uid: int) -> bool:
        """Whether a VMM of this user has groups, be it that it left them behind."""
        return any(folder.exists() for folder in self._folders(uid))

    def kill(self, uid: int) -> None:
        """Kill all that is in the groups, and let nothing new begin there."""
        for folder in self._folders(uid):
            with contextlib.suppress(OSError):
                (folder / "pids.max").write_text("0")
            if self._found.version == 2:
                with contextlib.suppress(OSError):  # since Linux 5.14
                    (folder / "cgroup.kill").write_text("1")
            # A thread of ours that has not ended yet after it started something is among them.
            for pid in set(_members(folder)) - {os.getpid()}:
                process.kill_if(pid, partial(_is_member, folder, pid))

    def remove(self, uid: int) -> bool:
        """Remove the groups; False when somebody is still in one."""
        gone = True
        for folder in self._folders(uid):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def close(self) -> None:
        """Remove what is above the groups, unless some are left."""
        for top in dict.fromkeys(self._tops.values()):
            with contextlib.suppress(OSError):
                top.rmdir()
        self._prepared = False

    def out_of_memory(self, uid: int) -> str | None:
        """What the kernel says of a VMM that it killed because its groups were full."""
        top = self._tops.get("memory")
        if top is None:
            return None
        file, limit = _EVENTS[self._found.version]
        try:
            lines = (top / str(uid) / file).read_text().splitlines()
            size_mb = int((top / str(uid) / limit).read_text()) >> 20
        except (OSError, ValueError):
            return None
        facts = dict(line.split(maxsplit=1) for line in lines)
        if not int(facts.get("oom_kill", 0)):
            return None
        return f"the monitor took all of the {size_mb} MB that it may have"

    def strays(self, keep: Collection[int]) -> set[int]:
        """The users of this installation's groups that are none of those."""
        found = {
            int(folder.name)
            for top in dict.fromkeys(self._tops.values())
            if top.exists()
            for folder in top.iterdir()
            if folder.name.isdigit()
        }
        return found - set(keep)


def _is_member(folder: Path, pid: int) -> bool:
    return pid in _members(folder)


def _members(folder: Path) -> list[int]:
    try:
        return [int(word) for word in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []
