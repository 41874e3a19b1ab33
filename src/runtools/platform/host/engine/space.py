"""The host's disk: what takes it, what is removed after its time, and what happens before it is full."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from datetime import timedelta
from functools import partial
from pathlib import Path

from runtools.errors import RunToolsError
from runtools.platform.core.ports.host import Stored
from runtools.platform.core.states import State
from runtools.platform.host.disk import files
from runtools.platform.host.disk.trees import remove, used_bytes
from runtools.platform.host.engine import snapshots
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.create import WARMING
from runtools.platform.host.engine.acts.destroy import forget_disk
from runtools.platform.host.engine.acts.pause import pause
from runtools.platform.host.engine.budget import MB
from runtools.platform.host.engine.engine import Engine, chosen
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.sdk.shapes.sandboxes import DiskUse, Pruned

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
SWEEP_SECONDS = 600.0
_PAUSED_AT_ONCE = 4
# A sandbox that is busy keeps its place among those that are paused for so long, then gives it to others.
_BUSY_SECONDS = 1.0
# How long the ledger of a sandbox without anything else is kept on the host. The api has its own.
REMEMBERED = timedelta(days=7)


class Space:
    """Watches the disk and sweeps it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pausing: set[str] = set()
        self._saving: set[str] = set()
        self._room = asyncio.Semaphore(_PAUSED_AT_ONCE)
        self._deciding = asyncio.Lock()

    @property
    def free_bytes(self) -> int:
        """What can still be written where the host keeps its files."""
        return files.free_bytes(self._engine.places.root)

    async def watch(self) -> None:
        """Look for ever; sweep now and then."""
        swept = self._engine.clock.monotonic()
        while True:
            await self._engine.clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
                if self._engine.clock.monotonic() - swept >= SWEEP_SECONDS:
                    swept = self._engine.clock.monotonic()
                    # Beside: it waits for disks that are being copied, and the guard waits for nothing.
                    self._engine.later(self.sweep(), "sweeping what is past its time")
            except Exception:
                # The guard against a full disk must outlive what a full disk makes fail.
                log.exception("looking after the disk failed; it is tried again")

    async def look(self) -> None:
        """Where the disk may not take what the running must still write, begin to pause them.

        It waits for none: one whose actor is busy is not to keep the others, nor the next look.
        """
        self._engine.admission.kick()
        if not await self._is_low():
            return
        running = chosen(self._engine.actors.values(), State.RUNNING)
        # What nobody has yet goes first; while its files are being removed the headroom is still there.
        builds = self._engine.templates.give_way()
        if builds and self.free_bytes >= self._engine.headroom_bytes:
            log.warning("the disk is almost full: what a build takes of it goes first")
            return
        boxes = [box for box in running if box.id not in self._pausing]
        if boxes:
            log.warning("the disk is almost full: pausing sandboxes, of which %d run", len(running))
        # The least recently used first, and those last who have something else to end before.
        for box in sorted(boxes, key=lambda one: (one.record.under_way is not None, one.touched)):
            self._pausing.add(box.id)
            self._engine.later(self._pause(box), f"pausing {box.id} before the disk is full")

    async def _pause(self, box: Actor) -> None:
        try:
            # Not all at once: a pause may write memory itself, and those before it may be enough. The place
            # comes before the turn, which would keep the sandbox's other acts meanwhile.
            async with self._room:
                if not await self._is_low():
                    return
                begun, late = asyncio.Event(), asyncio.Event()
                turn = asyncio.ensure_future(
                    box.perform(partial(self._in_turn, box, begun, late), first=True)
                )
                beginning = asyncio.ensure_future(begun.wait())
                await asyncio.wait(
                    {turn, beginning}, timeout=_BUSY_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                beginning.cancel()
                if begun.is_set() or turn.done():
                    await turn
                    return
                late.set()
            await turn
        except (RunToolsError, OSError) as exc:
            log.error("%s could not be paused: %s", box.id, exc)
        finally:
            self._pausing.discard(box.id)

    async def _in_turn(self, box: Actor, begun: asyncio.Event, late: asyncio.Event) -> None:
        """Pause it; one whose turn came late does so only where there is a place at once, or asks again."""
        begun.set()
        if not late.is_set():
            await self._pause_if_low(box)
        elif not self._room.locked():
            async with self._room:
                await self._pause_if_low(box)

    async def _pause_if_low(self, box: Actor) -> None:
        # One after the other: what is decided already may be enough.
        async with self._deciding:
            if box.state is not State.RUNNING or not await self._is_low():
                return
            self._saving.add(box.id)
        try:
            await pause(box, Why("disk_low", PLATFORM))
        finally:
            self._saving.discard(box.id)

    async def _is_low(self) -> bool:
        """Whether less is free than the headroom and what must still be written of the memory of all that

        has its place: the running at their pauses, those that are being started, and machines that are
        warmed, which write theirs now. Of those that are being paused for it nothing is expected any more.
        """
        above = self.free_bytes - self._engine.headroom_bytes
        tickets = {
            who: load.memory_mb * MB
            for who, load in self._engine.admission.tickets.items()
            if who not in self._saving
        }
        most = sum(tickets.values())
        if above < 0 or above >= most:
            return above < 0
        lives = [
            (self._engine.places.life(box.id, box.record.life.number), tickets[box.id])
            for box in self._engine.actors.values()
            if box.id in tickets and box.record.life is not None
        ]
        warming = sum(counted for who, counted in tickets.items() if who.startswith(WARMING))
        saved = await asyncio.to_thread(_saved, lives)
        if warming:
            saved += min(warming, await asyncio.to_thread(self._engine.warm.unfinished_bytes))
        return above < most - saved

    async def sweep(self) -> None:
        """Remove disks kept for recovery, ledgers and results that are past their time."""
        for box in chosen(list(self._engine.actors.values()), State.STOPPED):
            try:
                await self._sweep_one(box)
            except (RunToolsError, OSError) as exc:
                log.error("what is left of %s could not be removed: %s", box.id, exc)
        await asyncio.to_thread(self._engine.ops.sweep)
        await self._engine.reports.sync()

    async def _sweep_one(self, box: Actor) -> None:
        now, ending, stopped = self._engine.clock.now(), box.record.ending, box.record.stopped_at
        if ending and ending.recoverable_until and ending.recoverable_until <= now:
            await self._forget(box)
        elif not box.record.keeps_disk and stopped and now - stopped > REMEMBERED:
            # Its folder first: one that cannot be removed is tried again at the next sweep.
            await asyncio.to_thread(remove, box.folder)
            if self._engine.actors.pop(box.id, None) is not None:
                self._engine.reports.forget(box.id)
                await box.close(0)

    async def use(self) -> DiskUse:
        """What takes how much."""
        return await asyncio.to_thread(self._use)

    def _use(self) -> DiskUse:
        engine, places = self._engine, self._engine.places
        ended = {box.id for box in list(engine.actors.values()) if box.record.keeps_disk}
        sandboxes = _each(places.sandboxes)
        of_ended = sum(size for name, size in sandboxes.items() if name in ended)
        return DiskUse(
            total_bytes=_total_bytes(places.root),
            free_bytes=self.free_bytes,
            templates_bytes=sum(image.size_bytes for image in engine.templates.all()),
            warm_bytes=engine.warm.used_bytes(),
            sandboxes_bytes=sum(sandboxes.values()) - of_ended,
            snapshots_bytes=sum(
                size
                for place in (places.snapshots, places.captures)
                for size in _each(place).values()
            ),
            ended_bytes=of_ended,
        )

    async def stored(self) -> list[Stored]:
        """What every sandbox takes, its snapshots too."""
        return await asyncio.to_thread(self._stored)

    def _stored(self) -> list[Stored]:
        places = self._engine.places
        kept: defaultdict[str, int] = defaultdict(int)
        for one in snapshots.everything(places):
            kept[one.sandbox_id] += one.size_bytes
        return [
            Stored(sandbox_id=sandbox_id, size_bytes=size + kept[sandbox_id])
            for sandbox_id, size in _each(places.sandboxes).items()
        ]

    async def prune(self, *, ended: bool, warm: bool) -> Pruned:
        """Remove now what would be removed later."""
        before = self.free_bytes
        disks = warmed = 0
        if ended:
            for box in [one for one in self._engine.actors.values() if one.record.keeps_disk]:
                await self._forget(box)
                disks += 1
        if warm:
            warmed = await self._engine.warm.prune(0, ())
        freed = max(0, self.free_bytes - before)
        return Pruned(ended_sandboxes=disks, warm_snapshots=warmed, freed_bytes=freed)

    async def _forget(self, box: Actor) -> None:
        await box.perform(partial(forget_disk, box))


def _saved(lives: list[tuple[Path, float]]) -> float:
    """How much of their memory, as it is counted, lies on the disk already."""
    saved = 0.0
    for folder, counted in lives:
        try:
            saved += min(counted, used_bytes(folder / "vmm"))
        except OSError as exc:
            log.warning("what %s has saved cannot be told: %s", folder, exc)
    return saved


def _each(place: Path) -> dict[str, int]:
    """What each folder of a place takes. One that cannot be looked through hides no other."""
    sizes = {}
    for folder in place.iterdir():
        try:
            sizes[folder.name] = used_bytes(folder)
        except OSError as exc:
            log.warning("what %s takes cannot be told: %s", folder.name, exc)
    return sizes


def _total_bytes(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_blocks * stat.f_frsize
