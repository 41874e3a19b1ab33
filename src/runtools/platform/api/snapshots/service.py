"""Snapshots: making, listing and dropping kept states of a sandbox."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from runtools.errors import (
    HostUnavailable,
    NotFound,
    OutcomeUnknown,
    RunToolsError,
)
from runtools.platform.api.calls import Call
from runtools.platform.api.limits import store as limits
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.api.sandboxes import rules
from runtools.platform.api.sandboxes.acts import check_lively
from runtools.platform.api.sandboxes.load import load
from runtools.platform.api.snapshots import store
from runtools.platform.api.snapshots.store import Keep
from runtools.platform.core.ids import new_id
from runtools.platform.core.states import Act
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.sandboxes import SnapshotCreate


async def make(call: Call, ref: str, wanted: SnapshotCreate) -> Keep:
    """A snapshot of a running or paused sandbox."""
    platform = call.platform
    rules.check_name(wanted.name)
    record = await load(platform, call.org, ref)

    async def begun() -> Keep:
        check_lively(record, Act.SNAPSHOT)
        keep = Keep(
            id=new_id("snp"),
            org_id=call.org,
            sandbox_id=record.id,
            host_id=record.host_id,
            name=wanted.name,
            template_id=record.template_id,
            template=record.template,
            template_version=record.template_version,
            op=call.op,
            actor=call.actor,
            created_at=platform.clock.now(),
        )
        await platform.db.write(_add, keep, standard(platform.settings))
        return keep

    keep = await call.once(store.by_op, begun)
    reach("api.snapshot.written")
    return await ask(platform, keep)


def _add(conn: Transaction, keep: Keep, usual: Amounts) -> None:
    limits.reserve(conn, keep.org_id, Amounts(snapshots=1), usual)
    store.add(conn, keep)


async def page(call: Call, ref: str, after: tuple[datetime, str] | None, limit: int) -> list[Keep]:
    """The sandbox's snapshots, the oldest first."""
    record = await load(call.platform, call.org, ref)
    return await call.platform.db.read(store.page, call.org, record.id, after, limit)


async def drop(call: Call, ref: str, snapshot_ref: str) -> Keep:
    """Delete a snapshot; returns what it was."""
    record = await load(call.platform, call.org, ref)
    there = await call.platform.db.read(store.find, call.org, record.id, snapshot_ref[:80])
    # After that look: where it is gone by the doing of this act in another process, that is seen now.
    keep = await call.platform.db.read(store.dropped_by, call.org, call.op) or there
    if keep is None:
        raise NotFound(
            f"{record.id} has no snapshot {snapshot_ref[:80]!r}",
            hint=f"GET /v1/sandboxes/{record.id}/snapshots lists them",
        )
    if keep.state != "dropped":
        await call.platform.db.write(store.mark, keep.id, "dropping", call.op)
        reach("api.snapshot.dropping")
        await ask_drop(call.platform, replace(keep, drop_op=call.op))
    return keep


async def ask(platform: Platform, keep: Keep) -> Keep:
    """Ask the host for a snapshot that is wanted; refused, there is none."""
    if keep.state != "making":
        return keep
    with platform.about(keep.id):
        try:
            host = platform.hosts.port(keep.host_id)
            kept = await host.snapshot(keep.sandbox_id, keep.op, keep.actor, keep.id)
        except (HostUnavailable, OutcomeUnknown):
            raise
        except RunToolsError:
            await platform.db.write(store.forget, keep.id)
            raise
    reach("api.snapshot.asked")
    await platform.db.write(store.ready, keep.id, kept.size_bytes, kept.standstill_ms)
    return replace(
        keep, state="ready", size_bytes=kept.size_bytes, standstill_ms=kept.standstill_ms
    )


async def ask_drop(platform: Platform, keep: Keep) -> None:
    """Ask the host to drop a snapshot; one that is needed at the moment stays."""
    with platform.about(keep.id):
        try:
            await platform.hosts.port(keep.host_id).drop_snapshot(keep.id)
        except NotFound:
            pass  # gone already: a repeat
        except HostUnavailable:
            raise
        except RunToolsError:
            await platform.db.write(store.mark, keep.id, "ready", None)
            raise
    await platform.db.write(store.mark, keep.id, "dropped", keep.drop_op)
