"""Starting a VMM: its files opened, its holder started, its first words heard; and ending it."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from runtools.platform.core.ports.driver import Machine, VmmFailed
from runtools.platform.host.drivers.qemu import command, ending, holder, qmp, view
from runtools.platform.host.drivers.qemu.command import TCG_BUFFER_MB, Accelerator
from runtools.platform.host.drivers.qemu.groups import Groups, Limits
from runtools.platform.host.drivers.qemu.place import Occupied, Pids, Place, Run
from runtools.platform.host.drivers.qemu.probe import KVM, device_groups
from runtools.platform.host.net.enter import inside
from runtools.platform.host.net.taps import open_tap
from runtools.platform.kit import process

_UP_SECONDS = 60.0
_LOAD_SECONDS = 120.0
_RECORD_SECONDS = 5.0
_HOLDER_SECONDS = 3.0
_KILL_SECONDS = 30.0
_TAP_SECONDS = 5.0
_TAP_AGAIN_SECONDS = 0.01

# What a VMM has beside the guest's memory: QEMU itself, tables, and pages of files on their way.
_BESIDE_MB = 384
# Beside the virtual CPUs: up to 64 threads for the disk, some of QEMU's own, the holder's processes.
_PIDS = 128
_KILLED_EARLIER = b"500"


@dataclass(frozen=True, slots=True)
class Walls:
    """What stands around every VMM of an installation: its groups, and what it sees."""

    groups: Groups
    software: view.Software = field(default_factory=view.Software)


@dataclass(frozen=True, slots=True)
class Cold:
    """Boot the machine's kernel with these arguments, on RAM of its own."""

    arguments: str


@dataclass(frozen=True, slots=True)
class Saved:
    """Go on from saved devices, on RAM of its own or (``memory``) on another's, mapped privately."""

    devices: Path
    memory: Path | None = None


async def start(
    machine: Machine, run: Run, accelerator: Accelerator, how: Cold | Saved, walls: Walls
) -> None:
    """Start a VMM that has all it needs, and whose virtual CPUs stand still.

    Raises:
        VmmFailed: it did not come up; nothing of it is left.
    """
    place = Place(machine)
    try:
        lock = place.take()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(end, machine, walls)
            undo.callback(os.close, lock)  # before the end, which waits for it to be free
            place.prepare()
            place.note_run(run)
            await _start(machine, place, accelerator, how, lock, walls)
            async with qmp.talk(place.qmp, within=_UP_SECONDS) as vmm:
                if isinstance(how, Saved):
                    await _load(vmm)
                undo.pop_all()
        os.close(lock)
    except (OSError, Occupied, qmp.QmpLost, qmp.QmpRefused) as exc:
        raise failed(place, f"the VMM of {machine.id} did not come up", exc) from exc


async def _start(
    machine: Machine,
    place: Place,
    accelerator: Accelerator,
    how: Cold | Saved,
    lock: int,
    walls: Walls,
) -> None:
    """Start holder and VMM, behind all their walls."""
    software = await walls.software.laid()
    with ExitStack() as opened:

        def hand(path: Path) -> int:
            # Only named, not opened: the VMM opens it, with its own rights. A link is not followed:
            # a VMM may have left one in place of what it saved.
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            return fd

        tap = await _tap(machine)
        opened.callback(os.close, tap)
        control = opened.enter_context(qmp.listen(place.qmp))
        readable, writable = {"base": machine.base}, {"overlay": machine.overlay}
        writable["console"] = place.console_pipe
        private = isinstance(how, Saved) and how.memory is not None
        if isinstance(how, Cold):
            readable |= {"kernel": machine.kernel, "initrd": place.initrd}
        else:
            readable["devices"] = how.devices
        if isinstance(how, Saved) and how.memory is not None:
            readable["ram"] = how.memory
        else:
            writable["ram"] = place.ram
        handed = view.Handed(
            box=hand(place.box),
            held=hand(place.held),
            readable={name: hand(path) for name, path in readable.items()},
            writable={name: hand(path) for name, path in writable.items()},
            kvm=accelerator == "kvm",
        )
        words = command.arguments(
            machine,
            accelerator,
            command.Handed(tap, control.fileno(), private),
            how.arguments if isinstance(how, Cold) else None,
        )
        chain = holder.chain(
            machine.id,
            machine.uid,
            device_groups(KVM) if accelerator == "kvm" else [],
            view.BOX,
            words,
        )

        def entering() -> None:
            walls.groups.make(machine.uid, _limits(machine, accelerator))
            walls.groups.join(machine.uid)
            view.enter(software, handed)

        waiting, let_go = os.pipe2(os.O_CLOEXEC)
        opened.callback(os.close, let_go)
        opened.callback(os.close, waiting)
        pid = await process.start_detached(
            chain,
            cwd=Path(view.HELD),
            output=place.start_log,
            pass_fds=(tap, control.fileno()),
            stdin=waiting,
            stdout=lock,
            entering=entering,
        )
        walls.groups.admit(machine.uid, pid)
        Path(f"/proc/{pid}/oom_score_adj").write_bytes(_KILLED_EARLIER)
        os.write(let_go, b"go\n")


def _limits(machine: Machine, accelerator: Accelerator) -> Limits:
    buffer = TCG_BUFFER_MB if accelerator == "tcg" else 0
    return Limits(
        memory_bytes=(machine.memory_mb + buffer + _BESIDE_MB) << 20,
        vcpus=machine.vcpus,
        pids=machine.vcpus + _PIDS,
    )


async def _load(vmm: qmp.Qmp) -> None:
    """Have the VMM take in what was saved."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + _LOAD_SECONDS, 0.001
    await vmm.do("migrate-incoming", uri="file:/devices")
    while (await vmm.do("query-status"))["status"] == "inmigrate":
        if loop.time() > deadline:
            raise qmp.QmpLost(f"the state was not loaded in {_LOAD_SECONDS:g} s")
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.02)


async def _tap(machine: Machine) -> int:
    """The machine's tap, also while the VMM before this one is on its way out.

    Its files are closed one by one, and the tap may come after the lock that says that it is gone.
    """
    if not machine.slot.namespace:
        raise VmmFailed(f"{machine.id} has no network to be started in")
    deadline = time.monotonic() + _TAP_SECONDS
    while True:
        try:
            return await _opened_tap(machine)
        except OSError as exc:
            if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                raise VmmFailed(f"the network of {machine.id} cannot be used: {exc}") from exc
        await asyncio.sleep(_TAP_AGAIN_SECONDS)


async def _opened_tap(machine: Machine) -> int:
    opening = asyncio.ensure_future(
        inside(machine.slot.namespace, lambda: open_tap(machine.slot.tap))
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opening: asyncio.Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def failed(place: Place, what: str, cause: BaseException | str) -> VmmFailed:
    """An error that quotes the VMM's own last words."""
    said = "; ".join(place.messages()[-3:])
    return VmmFailed(f"{what}: {cause}" + (f" (it said: {said})" if said else ""))


async def pids(place: Place) -> Pids | None:
    """Who belongs to the machine's VMM; None when nothing of one is left.

    A holder that is just starting has not written it yet, so it is waited for.
    """
    deadline = asyncio.get_running_loop().time() + _RECORD_SECONDS
    while place.occupied():
        found = place.pids()
        if found is not None:
            return found
        if asyncio.get_running_loop().time() > deadline:
            return None
        await asyncio.sleep(0.005)
    return None


def runs(machine: Machine, found: Pids) -> bool:
    """Whether the VMM that was written down is there: nobody else ever runs as its user."""
    owner = Place(machine).owner()
    return owner is not None and ending.runs_as(found.vmm, owner)


async def end(machine: Machine, walls: Walls) -> None:
    """Kill the VMM and all that belongs to it, and wait until nothing is left.

    The VMM goes first, so that its holder writes down how it ended.

    Raises:
        VmmFailed: something of it cannot be killed.
    """
    place = Place(machine)
    owner = place.owner()
    if owner is None or not place.used():
        return  # nothing was ever started here
    found = await pids(place)
    if found is not None:
        process.kill_if(found.vmm, partial(ending.runs_as, found.vmm, owner))
    await free(place, _HOLDER_SECONDS)
    if not await ending.end_all(owner, walls.groups):
        raise VmmFailed(f"the VMM of {machine.id} cannot be killed")
    if not await free(place, _KILL_SECONDS):
        raise VmmFailed(f"the holder of {machine.id} cannot be killed")


async def free(place: Place, within: float) -> bool:
    """Wait until the lock is free: then the holder is gone."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + within, 0.001
    while place.occupied():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True
