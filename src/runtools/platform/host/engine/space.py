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
from runtools.platform.host.engine.actor import PLATFORM, Actor, Why
from runtools.platform.host.engine.acts.destroy import forget_disk
from runtools.platform.host.engine.acts.pause import pause
from runtools.platform.host.engine.budget import MB
from runtools.platform.host.engine.engine import Engine, chosen
from runtools.sdk.shapes.sandboxes import DiskUse, Pruned

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
SWEEP_SECONDS = 600.0
# How long the ledger of a sandbox without anything else is kept on the host. The api has its own.
REMEMBERED = timedelta(days=7)


class Space:
    """Watches the disk and sweeps it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
                    await self.sweep()
            except Exception:
                # The guard against a full disk must outlive what a full disk makes fail.
                log.exception("looking after the disk failed; it is tried again")

    async def look(self) -> None:
        """Below the headroom, pause what runs: a full disk would kill it."""
        self._engine.admission.kick()
        if self.free_bytes >= self._engine.settings.disk_headroom_mb * MB:
            return
        running = chosen(self._engine.actors.values(), State.RUNNING)
        if running:
            log.warning("the disk is almost full: pausing %d sandboxes", len(running))
        # The least recently used first, one after the other: a pause may write memory itself.
        for box in sorted(running, key=lambda one: one.touched):
            try:
                await box.perform(partial(pause, box, Why("disk_low", PLATFORM)))
            except (RunToolsError, OSError) as exc:
                log.error("%s could not be paused: %s", box.id, exc)

    async def sweep(self) -> None:
        """Remove disks kept for recovery, ledgers and results that are past their time."""
        now = self._engine.clock.now()
        for box in chosen(list(self._engine.actors.values()), State.STOPPED):
            ending, stopped = box.record.ending, box.record.stopped_at
            if ending and ending.recoverable_until and ending.recoverable_until <= now:
                await self._forget(box)
            elif not box.record.keeps_disk and stopped and now - stopped > REMEMBERED:
                self._engine.actors.pop(box.id)
                self._engine.reports.forget(box.id)
                await box.close(0)
                remove(box.folder)
        await asyncio.to_thread(self._engine.ops.sweep)
        await self._engine.reports.sync()

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
