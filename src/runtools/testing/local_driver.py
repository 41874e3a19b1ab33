"""A driver whose machines are local processes: for tests, and for development without a VMM.

A machine is the real guest agent under bubblewrap: a file tree, processes, network and users of its
own, the host's ``/usr`` read-only. It does what the port says: processes survive a suspend (they are
frozen, not saved), everything is found again from the folder alone after a restart of the platform, a
holder writes down how the machine ended, and the disk travels in the overlay file (`local_disk`).

What it does not do: isolate as a machine does, hold to vcpus, memory and disk size, keep processes
through a capture or through a reboot of the host, reach any network.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from runtools.platform.core.ports.driver import (
    Capabilities,
    Exit,
    Fingerprint,
    Machine,
    Usage,
    VmmFailed,
)
from runtools.platform.kit import files, process
from runtools.platform.kit.usage import usage
from runtools.testing import local_disk as disk
from runtools.testing import local_run
from runtools.testing.local_freeze import StillMoving, freeze, members, stopped, thaw
from runtools.testing.local_place import Place, tail

_SAVED = "capture.json"


def _place(machine: Machine) -> Place:
    return Place(machine.folder / "vmm")


class LocalDriver:
    """Runs machines as local processes. The module's header says what it can and cannot do."""

    name = "local"

    def __init__(self, home: Path | None = None) -> None:
        """``home``: the host's, whose sandboxes' machines `reclaim` looks through."""
        self._home = home
        self._acts: dict[Path, asyncio.Lock] = {}  # one act at a time on a machine
        self._suspends: dict[Path, asyncio.Event] = {}  # wakes watchers

    async def probe(self) -> Capabilities:
        """Always the same, where the programs that it needs are installed.

        Raises:
            VmmFailed: one of them is missing.
        """
        for program in ("bwrap", "tar", "bash", local_run.PYTHON):
            if shutil.which(program, path=process.PLAIN_ENV["PATH"]) is None:
                raise VmmFailed(f"{program} is not installed; local machines need it")
        return Capabilities(
            isolation="emulated",
            accelerator="process",
            reason="local processes stand in for machines",
            memory_survives=False,
        )

    def fingerprint(self, machine: Machine) -> Fingerprint:
        """Captures hold files only: little can make them unfit."""
        return {
            "vmm": "local-1",
            "machine": platform.machine(),
            "accelerator": "process",
            "base": machine.base.parent.name,
        }

    async def boot(self, machine: Machine) -> None:
        """Start the agent on the overlay's tree, or on a fresh one when the overlay is unused."""
        place = _place(machine)
        async with self._act(machine):
            suspended = place.stillness() is not None
            await local_run.end(place)
            if not suspended:  # else the overlay holds it already
                await local_run.put_away(place, machine.overlay)
            await self._start(machine, machine.boot_token)

    async def clone(self, machine: Machine, capture: Path) -> None:
        """As `boot`, but the agent answers to the token that the original had, as its copy would."""
        try:
            token = json.loads((capture / _SAVED).read_text())["token"]
        except FileNotFoundError as exc:
            raise VmmFailed(f"{capture} holds no capture") from exc
        async with self._act(machine):
            await local_run.end(_place(machine))
            await self._start(machine, token)

    async def suspend(self, machine: Machine) -> None:
        """Freeze every process and pack the disk. The processes stay in memory."""
        place = _place(machine)
        async with self._act(machine):
            first = self._awake(machine)
            if place.is_suspended():
                return
            already = await _freeze(place, first)
            try:
                await disk.pack(place.tree, machine.overlay)
            except BaseException:
                _thaw(place, first)
                raise
            place.set_still("suspended", already)
            self._suspended(machine).set()

    async def resume(self, machine: Machine) -> None:
        """Let the frozen processes go on."""
        async with self._act(machine):
            first = self._awake(machine)
            if not machine.overlay.exists():
                raise VmmFailed(f"there is no disk {machine.overlay}")
            if _place(machine).is_suspended():
                self._suspends.pop(machine.folder, None)
                _thaw(_place(machine), first)

    async def capture(
        self,
        machine: Machine,
        into: Path,
        while_still: Callable[[], Awaitable[None]],
        keep_free: int = 0,
    ) -> float:
        """Pack the disk for the caller to copy. Of memory there is nothing; processes are not captured."""
        place = _place(machine)
        async with self._act(machine):
            first = self._awake(machine)
            began = time.monotonic()
            standstill = 0.0
            if place.is_suspended():
                await while_still()
            else:
                await _freeze(place, first)
                try:
                    await disk.pack(place.tree, machine.overlay)
                    await while_still()
                finally:
                    _thaw(place, first)
                standstill = (time.monotonic() - began) * 1000
            into.mkdir(parents=True, exist_ok=True)
            saved = json.dumps({"token": local_run.token(place)})
            files.write_atomic(into / _SAVED, saved.encode())
            return standstill

    async def kill(self, machine: Machine) -> None:
        """End a live machine. A suspended one has no VMM to end: its state stays."""
        place = _place(machine)
        async with self._act(machine):
            if not place.is_suspended():
                await local_run.end(place)
                await local_run.put_away(place, machine.overlay)

    async def is_live(self, machine: Machine) -> bool:
        """Whether its processes are there and not suspended."""
        place = _place(machine)
        await local_run.introduced(place)
        return place.first() is not None and not place.is_suspended()

    async def watch(self, machine: Machine) -> Exit:
        """Wait for the end of its processes, or for a suspend: that ends a real VMM, too."""
        place = _place(machine)
        suspended = asyncio.ensure_future(self._suspended(machine).wait())
        gone = asyncio.ensure_future(local_run.gone(place))
        try:
            if not place.is_suspended():
                await asyncio.wait({suspended, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            suspended.cancel()
            gone.cancel()
        async with self._act(machine):
            if place.is_suspended():
                return Exit(0, None)
            await local_run.put_away(place, machine.overlay)
            return place.exit()

    async def connect(self, machine: Machine) -> socket.socket:
        """The agent listens on a Unix socket in the machine's tree."""
        if not await self.is_live(machine):
            raise ConnectionRefusedError(f"{machine.id} does not run")
        return local_run.connect(_place(machine))

    async def grow_disk(self, machine: Machine) -> None:
        """Nothing to tell: the tree has no size of its own."""

    async def console(self, machine: Machine, lines: int) -> list[str]:
        """What agent and bubblewrap said on their standard streams."""
        return list(tail(_place(machine).console, lines))

    async def memory_bytes(self, machine: Machine) -> int:
        """The share of all its processes."""
        first = _place(machine).first()
        return 0 if first is None else sum(_pss(pid) for pid in (first, *members(first)))

    def vacant(self, uid: int) -> bool:
        """Always: no local machine runs as a user of the host's that another could be given."""
        return True

    def owner(self, folder: Path) -> int | None:
        """Who a real machine would run as, as it was noted down at its start."""
        return Place(folder / "vmm").owner()

    async def reclaim(self, keep: Collection[int]) -> int:
        """End the machines of others below the home."""
        places = [] if self._home is None else self._home.glob("sandboxes/*/*/vmm")
        strays = [place for place in map(Place, places) if place.owner() not in {None, *keep}]
        for place in strays:
            await local_run.end(place)
        return len(strays)

    async def usage(self, machine: Machine) -> Usage | None:
        """All its processes together; what processes that have ended took is not counted."""
        first = _place(machine).first()
        if first is None or _place(machine).is_suspended():
            return None
        each = [told for pid in (first, *members(first)) if (told := usage(pid)) is not None]
        if not each:
            return None
        return Usage(
            cpu_seconds=sum(told.cpu_seconds for told in each),
            memory_bytes=sum(told.memory_bytes for told in each),
            age_seconds=max(told.age_seconds for told in each),
        )

    def _act(self, machine: Machine) -> asyncio.Lock:
        return self._acts.setdefault(machine.folder, asyncio.Lock())

    def _suspended(self, machine: Machine) -> asyncio.Event:
        return self._suspends.setdefault(machine.folder, asyncio.Event())

    async def _start(self, machine: Machine, token: str) -> None:
        self._suspends.pop(machine.folder, None)
        _place(machine).note_owner(machine.uid)
        await local_run.start(_place(machine), machine.base, machine.overlay, token)

    def _awake(self, machine: Machine) -> int:
        """The first process. What a crash in a freeze or thaw left half still is set going first."""
        place = _place(machine)
        first = place.first()
        if first is None:
            raise VmmFailed(f"nothing of {machine.id} runs, and nothing of it is suspended")
        if place.stillness() and not place.is_suspended():
            _thaw(place, first)
        return first


async def _freeze(place: Place, first: int) -> frozenset[int]:
    already = frozenset(stopped(members(first)))
    place.set_still("freezing", already)
    try:
        await freeze(first, already)
    except StillMoving as exc:
        place.clear_still()
        raise VmmFailed(str(exc)) from exc
    except BaseException:
        _thaw(place, first)
        raise
    return already


def _thaw(place: Place, first: int) -> None:
    still = place.stillness()
    already = still.already if still else frozenset()
    place.set_still("thawing", already)
    thaw(first, already)
    place.clear_still()


def _pss(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
