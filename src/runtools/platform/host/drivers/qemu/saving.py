"""What a suspend and a capture have in common: memory and devices of a VMM that stands still.

Devices are saved by ``xen-save-devices-state``, which does what its documentation says for any guest:
the state of all devices, without RAM. A migration would either write private RAM as a stream, which
reads every page of it, or leave it out only where it is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from runtools.platform.core.ports.driver import Machine, VmmFailed
from runtools.platform.host.drivers.qemu import launch, memory
from runtools.platform.host.drivers.qemu.captures import Capture
from runtools.platform.host.drivers.qemu.place import Place
from runtools.platform.host.drivers.qemu.qmp import Qmp, QmpLost, QmpRefused, talk

BROKEN = frozenset({"internal-error", "guest-panicked"})
"""What QEMU says of a guest that nothing will make go on."""

_MB = 1 << 20
_STOP_SECONDS = 60.0
_RESUME_SECONDS = 60.0
# Devices of a machine of ours are some hundred kilobytes.
_MOST_DEVICES = 64 * _MB
# Memory of which no more is in use is copied in some hundredths of a second, which a second pass over it
# would shorten by a few: it would make a fork longer by all of the first.
COPIED_ONCE = 256 * _MB


class Ram:
    """The memory of a live machine on its way into another file."""

    def __init__(
        self, machine: Machine, vmm_pid: int, *, private: bool, keep_free: int = 0
    ) -> None:
        """Fewer than ``keep_free`` bytes are never left on the disk: `CapacityExhausted`."""
        self._machine = machine
        self._size = machine.memory_mb * _MB
        self._private = private
        self._pid = vmm_pid
        self._keep_free = keep_free

    async def before(self, target: int) -> None:
        """What can be done while the guest runs.

        Of private RAM that is the file that the clone was made from. RAM of its own of which much is in
        use is copied once for nothing but a shorter standstill: what changes is copied again, over pages
        that are there then, which takes two thirds of the time or less.
        """
        await self._copied(self._copy_origin if self._private else self._copy_ahead, target)

    async def still(self, target: int) -> None:
        """The rest, while it stands still."""
        await self._copied(self._copy_changed if self._private else self._copy_own, target)

    async def _copied(self, copy: Callable[[int], None], target: int) -> None:
        try:
            await asyncio.to_thread(copy, target)
        except OSError as exc:
            raise VmmFailed(f"the memory of {self._machine.id} was not copied: {exc}") from exc

    def _copy_changed(self, target: int) -> None:
        memory.rescue(self._pid, self._size, target, self._keep_free)

    def _copy_origin(self, target: int) -> None:
        with closing(memory.private_file(self._pid, self._size)) as source:
            memory.copy(source, target, self._keep_free)

    def _copy_ahead(self, target: int) -> None:
        with closing(Place(self._machine).open("ram")) as source:
            if os.fstat(source).st_blocks * 512 > COPIED_ONCE:
                memory.copy(source, target, self._keep_free)

    def _copy_own(self, target: int) -> None:
        with closing(Place(self._machine).open("ram")) as source:
            memory.copy(source, target, self._keep_free)


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """An open file, closed at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


async def copy_devices(machine: Machine, source: Callable[[], int], capture: Capture) -> None:
    """Copy saved devices into a capture. The VMM wrote them, so they are opened and read with care.

    Raises:
        VmmFailed: they are not there, no plain file, or larger than any machine's devices are.
    """

    def copy() -> None:
        with os.fdopen(source(), "rb") as read:
            if os.fstat(read.fileno()).st_size > _MOST_DEVICES:
                raise OSError(errno.EFBIG, "it is larger than the devices of any machine")
            with os.fdopen(capture.create(capture.state), "wb") as write:
                # Never more than that, whatever a VMM adds while we read.
                write.write(read.read(_MOST_DEVICES))

    try:
        await asyncio.to_thread(copy)
    except OSError as exc:
        raise VmmFailed(f"the devices of {machine.id} were not copied: {exc}") from exc


@asynccontextmanager
async def stopped(machine: Machine) -> AsyncIterator[Qmp]:
    """A VMM whose guest stands still and whose devices lie in `Place.fresh_state`.

    Where the body fails, the guest runs on.

    Raises:
        VmmFailed: the VMM does not do it, or is gone.
    """
    place = Place(machine)
    place.fresh_state.unlink(missing_ok=True)
    try:
        async with talk(place.qmp) as vmm:
            now = str((await vmm.do("query-status"))["status"])
            if now in BROKEN:
                raise VmmFailed(f"{machine.id} is not worth saving: QEMU says {now}")
            try:
                await vmm.do("stop", within=_STOP_SECONDS)
                name = place.fresh_state.name
                await vmm.do(
                    "xen-save-devices-state", within=_STOP_SECONDS, filename=name, live=False
                )
                yield vmm
            except BaseException:
                # Whoever cancels us must not leave a guest that stands still.
                with contextlib.suppress(QmpLost, QmpRefused):
                    await asyncio.shield(go_on(place, vmm))
                raise
    except (QmpLost, QmpRefused) as exc:
        place.fresh_state.unlink(missing_ok=True)
        raise launch.failed(place, f"the state of {machine.id} could not be saved", exc) from exc


async def go_on(place: Place, vmm: Qmp) -> None:
    """Let a guest run that stood still; what was saved of it is void from here on."""
    place.state.unlink(missing_ok=True)
    await vmm.do("cont", within=_RESUME_SECONDS)


async def run(machine: Machine) -> None:
    """Let the virtual CPUs run.

    Raises:
        VmmFailed: they do not.
    """
    place = Place(machine)
    try:
        async with talk(place.qmp) as vmm:
            await vmm.do("cont", within=_RESUME_SECONDS)
    except (QmpLost, QmpRefused) as exc:
        raise launch.failed(place, f"{machine.id} does not run", exc) from exc


async def status(machine: Machine) -> str:
    """What the VMM says its guest does, e.g. ``running``, ``paused``, ``inmigrate``.

    Raises:
        VmmFailed: it does not say.
    """
    place = Place(machine)
    try:
        async with talk(place.qmp) as vmm:
            return str((await vmm.do("query-status"))["status"])
    except (QmpLost, QmpRefused) as exc:
        raise launch.failed(place, f"the VMM of {machine.id} does not answer", exc) from exc
