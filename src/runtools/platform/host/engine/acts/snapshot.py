"""Snapshot: memory, devices and disk of one moment, kept under an id of their own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from runtools.platform.core.ports.host import Kept
from runtools.platform.core.states import Act
from runtools.platform.host.disk import files
from runtools.platform.host.disk.trees import remove, sync, used_bytes
from runtools.platform.host.engine import snapshots
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.conclude import conclude
from runtools.platform.host.engine.acts.room import room
from runtools.platform.host.engine.places import OVERLAY, make_folder
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.snapshots import Snapshot
from runtools.platform.host.engine.why import Why
from runtools.platform.kit.files import sync_folder


async def snapshot(box: Actor, why: Why, snapshot_id: str) -> Kept:
    """Keep the state of a running or paused sandbox, which stays as it is."""
    places = box.engine.places
    async with box.act(Act.SNAPSHOT, why, things=(snapshot_id,)), AsyncExitStack() as undo:
        reach("snapshot.begun")
        memory_mb = box.record.order.sizes.memory_mb
        undo.enter_context(await room(box.engine, box.overlay, 1, memory_mb))
        folder = snapshots.scratch(places, snapshot_id)
        remove(folder)
        undo.callback(remove, folder)
        make_folder(folder)
        standstill = await capture(box, folder, "snapshot")
        reach("snapshot.captured")
        await asyncio.to_thread(sync, folder)
        # From the sheet to the name without a wait: it has every end that was answered before it bears it.
        made = _describe(box, snapshot_id, folder, standstill)
        snapshots.write_sheet(folder, made)
        folder.rename(places.snapshot(snapshot_id))
        await asyncio.to_thread(sync_folder, places.snapshot(snapshot_id).parent)
        reach("snapshot.kept")
        await finish(box, why, made)
    return made.kept


async def finish(box: Actor, why: Why, made: Snapshot) -> None:
    """Commit that a snapshot is kept: it bears its name."""
    await conclude(
        box,
        why,
        box.record,
        made.kept,
        snapshot=made.snapshot_id,
        standstill_ms=round(made.standstill_ms, 2),
    )


async def capture(box: Actor, into: Path, points: str) -> float:
    """Memory, devices and disk of one moment into a folder; returns the standstill in ms."""
    keep_free = box.engine.headroom_bytes

    async def while_still() -> None:
        await files.copy_sparse(box.overlay, into / OVERLAY, keep_free)
        reach(f"{points}.still")

    return await box.engine.driver.capture(box.machine(), into, while_still, keep_free)


def _describe(box: Actor, snapshot_id: str, folder: Path, standstill: float) -> Snapshot:
    record, sizes = box.record, box.record.order.sizes
    assert record.life is not None  # noqa: S101 - it was just captured
    return Snapshot(
        snapshot_id=snapshot_id,
        sandbox_id=box.id,
        template_version_id=record.order.template_version_id,
        vcpus=sizes.vcpus,
        memory_mb=sizes.memory_mb,
        disk_mb=sizes.disk_mb,
        token=record.life.token,
        # A paused machine was saved with what it was paused with, not with what is here now.
        fingerprint=record.fingerprint or dict(box.engine.driver.fingerprint(box.machine())),
        size_bytes=used_bytes(folder),
        standstill_ms=standstill,
        created_at=box.engine.clock.now(),
        to_end=tuple(record.to_end),
        called_off=record.called_off,
    )
