"""The QEMU driver. What each method promises is written at the port (`core.ports.driver`).

A machine's RAM is a file. It is the machine's own, mapped shared, after a cold boot and from its first
suspend on; before that a clone runs on its capture's file, mapped privately. Devices are saved apart
from RAM by one command, so a suspend costs the same whatever the size of the RAM:

    own      stop, save devices, quit
    private  copy the capture's file · stop · save devices, add the pages that differ · quit

A saved state counts from the moment when it lies at its final name, and is used up the moment before
virtual CPUs run on it: a crash leaves a live VMM or a whole state, and where it leaves both the VMM
is right.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from runtools.guest.protocol import PORT
from runtools.platform.core.ports.driver import (
    Capabilities,
    Exit,
    Fingerprint,
    Machine,
    Usage,
    VmmFailed,
)
from runtools.platform.host.drivers.qemu import ending, health, launch, memory, saving
from runtools.platform.host.drivers.qemu.captures import Capture, check_same
from runtools.platform.host.drivers.qemu.groups import Groups
from runtools.platform.host.drivers.qemu.place import Place, Run, owner
from runtools.platform.host.drivers.qemu.prints import fingerprint
from runtools.platform.host.drivers.qemu.probe import Prober
from runtools.platform.host.drivers.qemu.qmp import QmpLost, QmpRefused, talk
from runtools.platform.host.net.enter import inside
from runtools.platform.host.templates.initramfs import initrd_with_token
from runtools.platform.host.templates.kernel import host_tsc_khz, kernel_arguments
from runtools.platform.kit import process
from runtools.platform.kit.unbroken import to_its_end
from runtools.platform.kit.usage import usage

log = logging.getLogger(__name__)

GUEST_ADDRESS = "10.0.2.15"

_CONNECT_SECONDS = 1.0
_HOLDER_SECONDS = 5.0
_CONSOLE_TAIL = 50
_SIGNAL = 128
_LOOK_SECONDS = 15.0


class QemuDriver:
    """Machines under QEMU. It keeps no fact about a machine that is not in the machine's folder."""

    name = "qemu"

    def __init__(self, prober: Prober, groups: Groups, users: Sequence[range] = ()) -> None:
        """``users``: those that nobody but machines of this installation ever runs as."""
        self._users = users
        self._prober = prober
        self._walls = launch.Walls(groups)
        self._acts: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    async def probe(self) -> Capabilities:
        """Which accelerator works here, tried out once per boot of this machine."""
        return (await self._prober.choose()).capabilities

    def fingerprint(self, machine: Machine) -> Fingerprint:
        """What a state depends on that is saved now. `probe` must have been asked before.

        Raises:
            VmmFailed: the machine's template is not there.
        """
        assert self._prober.chosen is not None, "the driver was not probed"  # noqa: S101
        try:
            return fingerprint(machine, self._prober.chosen)
        except OSError as exc:
            raise VmmFailed(f"the template of {machine.id} cannot be read: {exc}") from exc

    async def boot(self, machine: Machine) -> None:
        """Start cold, on fresh memory."""
        choice = await self._prober.choose()
        async with self._act(machine):
            place = await self._cleared(machine)
            await asyncio.to_thread(_furnish, machine, place)
            run = Run(self.fingerprint(machine), private=False)
            tsc_khz = host_tsc_khz() if choice.accelerator == "tcg" else None
            how = launch.Cold(kernel_arguments(tsc_khz))
            await launch.start(machine, run, choice.accelerator, how, self._walls)
            place.initrd.unlink()  # the VMM has read it; the token need not lie about
            await self._run_or_end(machine)

    async def clone(self, machine: Machine, capture: Path) -> None:
        """Start from a capture, whose memory is mapped privately.

        Raises:
            SnapshotUnfit: the capture does not fit what is here.
        """
        choice = await self._prober.choose()
        source = Capture(capture)
        source.check(self.fingerprint(machine))
        async with self._act(machine):
            await self._cleared(machine)
            run = Run(self.fingerprint(machine), private=True)
            how = launch.Saved(source.state, source.ram)
            await launch.start(machine, run, choice.accelerator, how, self._walls)
            await self._run_or_end(machine)

    async def suspend(self, machine: Machine) -> None:
        """Save and end. A machine that ran on another's memory has its own afterwards."""
        async with self._act(machine):
            place = Place(machine)
            vmm_pid = await self._pid(machine)
            if vmm_pid is None:
                if place.state.exists():
                    return
                raise VmmFailed(f"{machine.id} has neither a VMM nor a saved state")
            place.state.unlink(missing_ok=True)  # a live VMM is right, whatever was saved before
            run = place.run()
            ram = saving.Ram(machine, vmm_pid, private=run.private)
            if run.private:
                with memory.Fresh(place.ram, machine.uid) as fresh:
                    await ram.before(fresh.fd)
                    async with saving.stopped(machine):
                        await ram.still(fresh.fd)
                        fresh.keep()
                        place.keep_state(run.fingerprint)
            else:
                async with saving.stopped(machine):
                    place.keep_state(run.fingerprint)
            # The state counts now, so the VMM must not go on, even if the caller goes away.
            await to_its_end(launch.end(machine, self._walls))

    async def resume(self, machine: Machine) -> None:
        """Go on, from the saved state or in the VMM that is still there.

        Raises:
            SnapshotUnfit: the state does not fit what is here.
        """
        choice = await self._prober.choose()
        async with self._act(machine):
            place = Place(machine)
            if await self._pid(machine) is not None and await self._goes_on(machine):
                return
            await launch.end(machine, self._walls)
            if not place.state.exists():
                raise VmmFailed(f"{machine.id} has no saved state")
            now = self.fingerprint(machine)
            check_same(f"the saved state of {machine.id}", place.state_fingerprint(), now)
            run = Run(now, private=False)
            await launch.start(
                machine, run, choice.accelerator, launch.Saved(place.state), self._walls
            )
            used = place.state.rename(place.used_state)
            try:
                await self._run_or_end(machine)
            except VmmFailed as exc:
                if isinstance(exc.__cause__, QmpRefused):  # it never ran, so the state is whole
                    used.rename(place.state)
                raise
            used.unlink()

    async def capture(
        self,
        machine: Machine,
        into: Path,
        while_still: Callable[[], Awaitable[None]],
        keep_free: int = 0,
    ) -> float:
        """Copy memory and devices into a folder."""
        async with self._act(machine):
            place, capture = Place(machine), Capture(into)
            vmm_pid = await self._pid(machine)
            if vmm_pid is None and not place.state.exists():
                raise VmmFailed(f"{machine.id} has neither a VMM nor a saved state")
            capture.begin()
            if vmm_pid is None:
                ram = saving.Ram(machine, 0, private=False, keep_free=keep_free)
                with saving.closing(capture.create(capture.ram)) as target:
                    await ram.still(target)
                await saving.copy_devices(machine, place.open_state, capture)
                await while_still()
                capture.complete(place.state_fingerprint())
                return 0.0
            still_ms = await self._capture_live(machine, vmm_pid, capture, while_still, keep_free)
            capture.complete(place.run().fingerprint)
            return still_ms

    async def _capture_live(
        self,
        machine: Machine,
        vmm_pid: int,
        capture: Capture,
        while_still: Callable[[], Awaitable[None]],
        keep_free: int,
    ) -> float:
        place, loop = Place(machine), asyncio.get_running_loop()
        private = place.run().private
        ram = saving.Ram(machine, vmm_pid, private=private, keep_free=keep_free)
        with saving.closing(capture.create(capture.ram)) as target:
            await ram.before(target)
            begun = loop.time()
            async with saving.stopped(machine) as vmm:
                await _both(ram.still(target), while_still())
                await saving.go_on(place, vmm)
            still_ms = (loop.time() - begun) * 1000
        try:
            await saving.copy_devices(machine, lambda: place.open(place.fresh_state.name), capture)
        finally:
            place.fresh_state.unlink(missing_ok=True)
        return still_ms

    async def kill(self, machine: Machine) -> None:
        """End the VMM, also in the middle of another act, and all that such an act has started."""
        await launch.end(machine, self._walls)
        async with self._act(machine):
            await launch.end(machine, self._walls)

    async def is_live(self, machine: Machine) -> bool:
        """Whether its VMM is there."""
        return await self._pid(machine) is not None

    async def watch(self, machine: Machine) -> Exit:
        """Wait for the end and read what the holder wrote down."""
        place = Place(machine)
        found = await launch.pids(place)
        stuck = None
        if found is not None and launch.runs(machine, found):
            stuck = await self._outlived(machine, found.vmm)
        await launch.free(place, _HOLDER_SECONDS)
        status = place.exit_status()
        signalled = status is not None and status > _SIGNAL
        return Exit(
            code=None if signalled else status,
            signal=status - _SIGNAL if status is not None and signalled else None,
            console_tail=tuple(place.console(_CONSOLE_TAIL)),
            messages=tuple(place.messages()),
            stuck=stuck,
            out_of_memory=self._walls.groups.out_of_memory(machine.uid) if signalled else None,
        )

    async def connect(self, machine: Machine) -> socket.socket:
        """Connect inside the machine's namespace.

        Raises:
            ConnectionError, TimeoutError: nobody answers (yet).
        """
        try:
            sock = await inside(machine.slot.namespace, _socket)
        except OSError as exc:
            raise ConnectionError(f"the network of {machine.id} is gone: {exc}") from exc
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, (GUEST_ADDRESS, PORT))
        except ConnectionError:
            sock.close()
            raise
        except OSError as exc:
            sock.close()
            raise ConnectionError(f"{machine.id} cannot be reached: {exc}") from exc
        except BaseException:
            sock.close()
            raise
        return sock

    async def grow_disk(self, machine: Machine) -> None:
        """Make the VMM look at the overlay's size again, and tell the guest."""
        place = Place(machine)
        size = machine.overlay.stat().st_size
        async with self._act(machine):
            try:
                async with talk(place.qmp) as vmm:
                    await vmm.do("block_resize", node_name="overlay", size=size)
            except (QmpLost, QmpRefused) as exc:
                raise launch.failed(place, f"the disk of {machine.id} did not grow", exc) from exc

    async def console(self, machine: Machine, lines: int) -> list[str]:
        """The end of the console, read from what the holder keeps of it."""
        return await asyncio.to_thread(Place(machine).console, lines)

    async def memory_bytes(self, machine: Machine) -> int:
        """The VMM's PSS; 0 for a machine that is not live."""
        vmm_pid = await self._pid(machine)
        return 0 if vmm_pid is None else await asyncio.to_thread(memory.pss, vmm_pid)

    async def usage(self, machine: Machine) -> Usage | None:
        """The kernel's counts of the VMM's process."""
        vmm_pid = await self._pid(machine)
        return None if vmm_pid is None else usage(vmm_pid)

    async def _outlived(self, machine: Machine, vmm_pid: int) -> str | None:
        """Wait until a VMM has ended. One that is stuck for good is ended, and it is said why."""
        gone = asyncio.ensure_future(process.wait_pid_gone(vmm_pid))
        try:
            while not (await asyncio.wait({gone}, timeout=_LOOK_SECONDS))[0]:
                if self._act(machine).locked():
                    continue
                async with self._act(machine):
                    stuck = await health.stuck(machine)
                    if stuck is not None:
                        await launch.end(machine, self._walls)
                        return stuck
            return None
        finally:
            gone.cancel()

    def vacant(self, uid: int) -> bool:
        """Whether nothing runs as the user, nor has left groups behind."""
        groups = self._walls.groups
        return not (groups.there(uid) if groups.usable else ending.processes_of(uid))

    def owner(self, folder: Path) -> int | None:
        """Whose the box is."""
        return owner(folder)

    async def reclaim(self, keep: Collection[int]) -> int:
        """End what runs in groups or as users of this installation, but not as these users."""
        groups = self._walls.groups
        strays = await asyncio.to_thread(groups.strays, keep)
        strays |= await asyncio.to_thread(ending.users_of, self._users) - set(keep)
        for uid in strays:
            if not await ending.end_all(uid, groups):
                log.error("what runs as user %d, a VMM that no sandbox owns, cannot be killed", uid)
        return len(strays)

    def close(self) -> None:
        """Leave nothing on this machine that only a running platform needs."""
        self._walls.groups.close()

    # --- what several of them do ---

    def _act(self, machine: Machine) -> asyncio.Lock:
        """One act at a time on a machine: its control socket serves one client."""
        return self._acts.setdefault(machine.folder, asyncio.Lock())

    async def _pid(self, machine: Machine) -> int | None:
        found = await launch.pids(Place(machine))
        return found.vmm if found is not None and launch.runs(machine, found) else None

    async def _cleared(self, machine: Machine) -> Place:
        """The machine's place, with nothing of an earlier life in it."""
        await launch.end(machine, self._walls)
        place = Place(machine)
        await asyncio.to_thread(place.forget)  # memory may be gigabytes
        return place

    async def _goes_on(self, machine: Machine) -> bool:
        """Make sure that a live VMM's guest runs; False when it was never given what to run."""
        now = await saving.status(machine)
        if now == "inmigrate":
            return False
        Place(machine).state.unlink(missing_ok=True)
        if now != "running":
            await saving.run(machine)
        return True

    async def _run_or_end(self, machine: Machine) -> None:
        try:
            await saving.run(machine)
        except BaseException:
            await to_its_end(launch.end(machine, self._walls))
            raise


def _furnish(machine: Machine, place: Place) -> None:
    """What a cold boot needs: the initrd with the boot's token, and empty memory."""
    place.make_folders()
    initrd_with_token(machine.initrd, machine.boot_token, place.initrd)
    os.chown(place.initrd, machine.uid, machine.uid)
    with memory.Fresh(place.ram, machine.uid) as fresh:
        os.ftruncate(fresh.fd, machine.memory_mb << 20)
        fresh.keep()


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _both(one: Awaitable[None], other: Awaitable[None]) -> None:
    """Wait for both to the end, and fail when one of them did."""
    for result in await asyncio.gather(one, other, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
