"""Starting a VMM: its files opened, its holder started, its first words heard; and ending it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from runtools.platform.core.ports.driver import Machine, VmmFailed
from runtools.platform.host.drivers.qemu import command, holder, qmp
from runtools.platform.host.drivers.qemu.command import Accelerator, Boot, Handed, Memory
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


@dataclass(frozen=True, slots=True)
class Cold:
    """Boot the machine's kernel with these arguments, on RAM of its own."""

    arguments: str


@dataclass(frozen=True, slots=True)
class Saved:
    """Go on from saved devices, on RAM of its own or (``memory``) on another's, mapped privately."""

    devices: Path
    memory: Path | None = None


async def start(machine: Machine, run: Run, accelerator: Accelerator, how: Cold | Saved) -> None:
    """Start a VMM that has all it needs, and whose virtual CPUs stand still.

    Raises:
        VmmFailed: it did not come up; nothing of it is left.
    """
    place = Place(machine)
    try:
        lock = place.take()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(end, machine)
            undo.callback(os.close, lock)  # before the end, which waits for it to be free
            place.prepare()
            place.note_run(run)
            devices = await _start(machine, place, accelerator, how, lock)
            async with qmp.talk(place.qmp, within=_UP_SECONDS) as vmm:
                if devices is not None:
                    await _load(vmm, devices)
                undo.pop_all()
        os.close(lock)
    except (OSError, Occupied, qmp.QmpLost, qmp.QmpRefused) as exc:
        raise failed(place, f"the VMM of {machine.id} did not come up", exc) from exc


async def _start(
    machine: Machine, place: Place, accelerator: Accelerator, how: Cold | Saved, lock: int
) -> str | None:
    """Start holder and VMM; returns what the VMM calls the file with the saved devices."""
    with ExitStack() as opened:
        fds = [lock]

        def hand(path: Path) -> int:
            # Only named, not opened: the VMM opens it anew, with its own rights. A link is not
            # followed: a VMM may have left one in place of what it saved.
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            fds.append(fd)
            return fd

        tap = await _tap(machine)
        opened.callback(os.close, tap)
        control = opened.enter_context(qmp.listen(place.qmp))
        fds += [tap, control.fileno()]
        ram, boot, devices = Memory("ram", private=False), None, None
        if isinstance(how, Cold):
            kernel, initrd = hand(machine.kernel), hand(place.initrd)
            boot = Boot(command.opened(kernel), command.opened(initrd), how.arguments)
        else:
            devices = command.opened(hand(how.devices))
            if how.memory is not None:
                ram = Memory(command.opened(hand(how.memory)), private=True)
        base, overlay = hand(machine.base), hand(machine.overlay)
        handed = Handed(base, overlay, tap, control.fileno(), ram)
        words = command.arguments(machine, accelerator, handed, boot)
        groups = device_groups(KVM) if accelerator == "kvm" else []
        await process.start_detached(
            holder.chain(machine.id, machine.uid, groups, words),
            cwd=place.box,
            output=place.start_log,
            pass_fds=fds,
        )
    return devices


async def _load(vmm: qmp.Qmp, devices: str) -> None:
    """Have the VMM take in what was saved."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + _LOAD_SECONDS, 0.001
    await vmm.do("migrate-incoming", uri=f"file:{devices}")
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
    """Whether the VMM that was written down is still that process, and not another with its number."""
    return started(found.vmm) == found.started and command.name(machine.id) in _words(found.vmm)


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since the boot; None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


async def end(machine: Machine) -> None:
    """Kill the VMM and all that belongs to it, and wait until nothing is left.

    Raises:
        VmmFailed: something of it cannot be killed.
    """
    place = Place(machine)
    found = await pids(place)
    if found is not None and runs(machine, found):
        _kill(found.vmm)
    if await free(place, _HOLDER_SECONDS):
        return
    _sweep(place)
    if not await free(place, _KILL_SECONDS):
        raise VmmFailed(f"the VMM of {machine.id} cannot be killed")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def free(place: Place, within: float) -> bool:
    """Wait until the lock is free: then the last process of the VMM is gone."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + within, 0.001
    while place.occupied():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


def _sweep(place: Place) -> None:
    """Kill whatever runs as the machine's user in its box, though it was not written down."""
    owner = place.owner()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                cwd = str(Path(f"/proc/{entry.name}/cwd").readlink())
                if entry.stat().st_uid == owner and cwd == str(place.box):
                    _kill(int(entry.name))
