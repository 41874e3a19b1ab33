"""The driver port: what a virtual machine monitor must be able to do.

A driver knows memory, virtual CPUs and devices of one machine; it holds nothing in memory that it
could not find again from the `Machine` it is handed, so a restarted host can go on with machines that
were started before. Policy (which sandbox, when, with which disk, journal, admission) stays outside.

The life of a machine, as a driver sees it:

    boot ──▶ live ──suspend──▶ suspended ──resume──▶ live
    clone ─▶ live ──capture──▶ live (a copy of its memory lies in a folder)
             live ──kill / own death──▶ gone        suspended ──capture──▶ suspended
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from runtools.sdk.shapes.sandboxes import Isolation

Fingerprint = Mapping[str, str]
"""What a saved state depends on: ``vmm``, ``machine``, ``accelerator``, ``cpu``, ``kernel`` …"""


@dataclass(frozen=True, slots=True)
class Slot:
    """A network of one sandbox: a namespace that holds its tap and nobody else's.

    ``namespace`` and ``tap`` are empty for a driver whose machines have no network of their own.
    """

    namespace: str
    tap: str
    index: int


@dataclass(frozen=True, slots=True)
class Machine:
    """All that a driver needs to know of one machine. Written to the host's journal.

    Attributes:
        id: the sandbox's (or build's) id.
        folder: the machine's own folder. The driver may keep in it what it likes below ``vmm/``.
        vcpus: number of virtual CPUs.
        memory_mb: RAM in MB.
        base: the read-only base image, shared by all machines of a template version.
        kernel, initrd: what boots it.
        overlay: its own writable disk.
        uid: the user (and group) that its VMM runs as.
        slot: its network.
        boot_token: what the guest agent asks of its callers after a cold boot.
    """

    id: str
    folder: Path
    vcpus: int
    memory_mb: int
    base: Path
    kernel: Path
    initrd: Path
    overlay: Path
    uid: int
    slot: Slot
    boot_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a machine's VMM ended. Code and signal both None: it is gone and nobody saw how.

    Attributes:
        stuck: why the driver itself ended a VMM that could not go on.
        out_of_memory: what the VMM's own limit had to do with it, where the kernel enforced it.
    """

    code: int | None
    signal: int | None
    console_tail: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    stuck: str | None = None
    out_of_memory: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a live machine's VMM has taken of the host so far.

    Attributes:
        cpu_seconds: processor time since it was started.
        memory_bytes: resident memory, what is shared with others included.
        age_seconds: for how long this VMM has been there: a resume starts another one.
    """

    cpu_seconds: float
    memory_bytes: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver can and cannot keep.

    Attributes:
        isolation: what stands between the guest and the host.
        accelerator: the name shown to people, e.g. ``kvm``, ``tcg``, ``process``.
        reason: why this accelerator was chosen, in one sentence.
        memory_survives: whether suspend and capture keep the processes of the guest. Only a fake may
            say False for captures.
    """

    isolation: Isolation
    accelerator: str
    reason: str
    memory_survives: bool


class Driver(Protocol):
    """A virtual machine monitor. Every method may be called again after a crash in the middle of it."""

    name: str

    async def probe(self) -> Capabilities:
        """What this machine gives; cached per boot of the host machine."""
        ...

    def fingerprint(self, machine: Machine) -> Fingerprint:
        """What a state saved now would depend on; equal fingerprints mean it can be restored."""
        ...

    async def boot(self, machine: Machine) -> None:
        """Start cold from base, kernel and overlay. Returns once the virtual CPUs run.

        Raises:
            VmmFailed: the VMM did not come up; nothing of it is left running.
        """
        ...

    async def clone(self, machine: Machine, capture: Path) -> None:
        """Start from a capture made of another machine, which stays untouched and can be used again.

        ``machine.overlay`` already holds a copy of the disk that belongs to the capture. Returns once
        the virtual CPUs run. The caller renews identity before anybody gets the machine.

        Raises:
            VmmFailed: the VMM did not come up; nothing of it is left running.
        """
        ...

    async def suspend(self, machine: Machine) -> None:
        """Stop, save memory and devices below the machine's folder, end the VMM. All or nothing:

        on failure the machine runs on (or, where its VMM died, is gone) and no half state is left.
        After it returns the state is complete; `sync` makes it durable. Asked again of a machine
        whose state is complete and whose VMM is gone it returns; where neither is there it raises.
        This is how a restarted host learns whether a pause was finished.

        Raises:
            VmmFailed: there is no complete state.
        """
        ...

    async def resume(self, machine: Machine) -> None:
        """Go on from `suspend`. The state is used up once virtual CPUs have run on it; a resume that

        failed before that leaves it whole. Returns once the virtual CPUs run. Asked of a live machine
        it makes sure that the virtual CPUs run (a capture or suspend may have been killed in the middle).

        Raises:
            VmmFailed: the VMM did not come up; nothing of it is left running.
        """
        ...

    async def capture(
        self,
        machine: Machine,
        into: Path,
        while_still: Callable[[], Awaitable[None]],
        keep_free: int = 0,
    ) -> float:
        """Copy memory and devices into the folder ``into``, of a live or a suspended machine.

        ``while_still`` is awaited while the guest stands still, so that the caller can copy the disks
        of the same moment. A live machine runs on afterwards, whatever happens.

        Returns:
            Milliseconds for which a live guest stood still; 0 for a suspended one.

        Raises:
            CapacityExhausted: fewer than ``keep_free`` bytes would be left on the disk.
        """
        ...

    async def kill(self, machine: Machine) -> None:
        """End the VMM at once and wait until it is gone. Nothing to kill is no error."""
        ...

    async def is_live(self, machine: Machine) -> bool:
        """Whether a VMM of this machine is there, whoever started it."""
        ...

    async def watch(self, machine: Machine) -> Exit:
        """Wait until the machine's VMM is gone, and say how it ended."""
        ...

    async def connect(self, machine: Machine) -> socket.socket:
        """A fresh non-blocking stream socket to the guest agent.

        Raises:
            ConnectionError, TimeoutError: nobody answers (yet).
        """
        ...

    async def grow_disk(self, machine: Machine) -> None:
        """Tell a live guest's disk that the overlay file has grown."""
        ...

    async def console(self, machine: Machine, lines: int) -> list[str]:
        """The last lines of the machine's console, of a live machine or of one that is gone, as long

        as its folder is there. Bounded in bytes too: a guest can write lines without an end.
        """
        ...

    async def memory_bytes(self, machine: Machine) -> int:
        """Memory that a live machine's VMM occupies by itself (PSS)."""
        ...

    async def usage(self, machine: Machine) -> Usage | None:
        """What it has taken so far, quickly and without a word to it; None for one not live."""
        ...

    def vacant(self, uid: int) -> bool:
        """Whether nothing runs as a user any more, so that another machine may be given it."""
        ...

    def owner(self, folder: Path) -> int | None:
        """The user of the latest machine in a `Machine.folder`, for where no record of it can be read."""
        ...

    async def reclaim(self, keep: Collection[int]) -> int:
        """End what a crash left of machines whose users are none of those; returns how many."""
        ...


class VmmFailed(Exception):
    """The VMM could not do what was asked; the message quotes its own last words."""
