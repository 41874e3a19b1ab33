"""What the driver suite needs around a driver: machines to run, and ways to speak to and harm them."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from runtools.errors import GuestUnreachable
from runtools.platform.core.egress import SHUT
from runtools.platform.core.ports.driver import Driver, Exit, Machine
from runtools.platform.core.ports.network import Network
from runtools.platform.host.disk.files import copy_sparse, make_overlay
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.templates.images import Image
from runtools.platform.kit import process
from runtools.sdk.shapes.inside import ExecRequest

T = TypeVar("T")

DISK_MB = 512
_UID_FLOOR = 0x7000_0000
_RETRY_SECONDS = 0.05


@dataclass
class DriverRig:
    """One driver and what is around it.

    Attributes:
        make: a driver object as a fresh host process would make it, finding the same machines.
        factory: the same as ``module:function``, for a process of its own that is to be killed.
        image: what machines stand on.
        folder: for machines and captures; VMMs can pass through it.
        network: where machines get their slots from.
        vmm: the pid of a live machine's VMM.
        patience: seconds within which anything must have happened.
        vcpus, memory_mb: of each machine.
        rounds: how often each act is killed.
        window: the longest time, in seconds, after which an act is killed.
    """

    make: Callable[[], Driver]
    factory: str
    image: Image
    folder: Path
    network: Network
    vmm: Callable[[Machine], int]
    patience: float = 20.0
    vcpus: int = 1
    memory_mb: int = 512
    rounds: int = 4
    window: float = 0.06
    machines: list[Machine] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _guests: dict[Path, GuestClient] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the first driver."""
        self.driver = self.make()

    async def machine(self, *, disk: Path | None = None, token: str | None = None) -> Machine:
        """One that is furnished and not started: folder, disk (a copy, or a fresh one), network."""
        number = next(self._numbers)
        folder = self.folder / f"machine-{number}"
        folder.mkdir(mode=0o711)
        overlay, uid = folder / "overlay.img", _UID_FLOOR + number
        if disk is None:
            await make_overlay(overlay, DISK_MB)
        else:
            await copy_sparse(disk, overlay)
        if os.geteuid() == 0:
            os.chown(overlay, uid, uid)
        machine = Machine(
            id=f"machine-{number}",
            folder=folder,
            vcpus=self.vcpus,
            memory_mb=self.memory_mb,
            base=self.image.base,
            kernel=self.image.kernel,
            initrd=self.image.initrd,
            overlay=overlay,
            uid=uid,
            slot=await self.network.open(SHUT),
            boot_token=token or secrets.token_hex(32),
        )
        self.machines.append(machine)
        return machine

    async def live(self) -> Machine:
        """One that was booted and whose agent answers."""
        machine = await self.machine()
        await self.soon(self.driver.boot(machine))
        await self.answers(machine)
        return machine

    async def clone(self, capture: Path, original: Machine) -> Machine:
        """A clone of a capture, whose agent answers."""
        machine = await self.machine(disk=capture / "overlay.img", token=original.boot_token)
        await self.soon(self.driver.clone(machine, capture))
        await self.answers(machine)
        return machine

    async def captured(self, machine: Machine) -> Path:
        """A capture of a machine, its disk of the same moment included."""
        into = self.folder / f"capture-{next(self._numbers)}"
        into.mkdir(mode=0o711)

        async def copy() -> None:
            await copy_sparse(machine.overlay, into / "overlay.img")

        await self.soon(self.driver.capture(machine, into, copy))
        return into

    def restart(self) -> None:
        """Go on with a driver object that knows nothing but what lies in the folders."""
        self.driver = self.make()

    # --- inside ---

    def guest(self, machine: Machine) -> GuestClient:
        """The client of a machine's agent."""
        if machine.folder not in self._guests:
            self._guests[machine.folder] = GuestClient(
                lambda: self.driver.connect(machine), machine.boot_token
            )
        return self._guests[machine.folder]

    async def answers(self, machine: Machine) -> None:
        """Wait until the agent answers."""
        async with asyncio.timeout(self.patience):
            while True:
                try:
                    await self.guest(machine).hello()
                except (GuestUnreachable, OSError):
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    return

    async def sh(self, machine: Machine, line: str) -> str:
        """What a shell line prints inside; it must succeed."""
        request = ExecRequest(command=line, cwd="/", timeout_ms=int(self.patience * 1000))
        result = await self.soon(self.guest(machine).exec(request))
        assert result.exit_code == 0, result
        return result.stdout.strip()

    async def ticking(self, machine: Machine) -> None:
        """Start a process inside that counts in ``/root/ticks``, ten times a second."""
        count = (
            "n=0; while :; do n=$((n+1)); echo $n > /root/t; mv /root/t /root/ticks; sleep .1; done"
        )
        await self.sh(machine, f"setsid bash -c '{count}' >/dev/null 2>&1 </dev/null &")
        await self.ticks_on(machine)

    async def ticks_on(self, machine: Machine) -> int:
        """Wait until the counting process has counted on; returns where it is."""
        before = await self._ticks(machine)
        async with asyncio.timeout(self.patience):
            while (now := await self._ticks(machine)) <= before:
                await asyncio.sleep(_RETRY_SECONDS)
        return now

    async def _ticks(self, machine: Machine) -> int:
        return int(await self.sh(machine, "cat /root/ticks 2>/dev/null || echo 0"))

    # --- outside ---

    async def soon(self, act: Coroutine[Any, Any, T]) -> T:
        """The result of something that must not take long."""
        async with asyncio.timeout(self.patience):
            return await act

    async def assassinate(self, machine: Machine) -> None:
        """Kill the VMM behind the driver's back."""
        pid = self.vmm(machine)
        os.kill(pid, signal.SIGKILL)
        await self.soon(process.wait_pid_gone(pid))

    async def ended(self, machine: Machine) -> Exit:
        """How it ended; it must have."""
        return await self.soon(self.driver.watch(machine))

    async def not_live(self, machine: Machine) -> None:
        """Wait until nothing of it is live."""
        async with asyncio.timeout(self.patience):
            while await self.driver.is_live(machine):
                await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        """Kill every machine and give all networks back."""
        for guest in self._guests.values():
            await guest.close()
        for machine in self.machines:
            await self.driver.kill(machine)
            await self.network.close(machine.slot)
