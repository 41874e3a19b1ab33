"""Acts on a sandbox that is there: pause, resume, destroy, rollback.

The wish is written with the next generation, by compare-and-set; then the host is asked. Until the host
has taken a wish up or refused it, it stays open, and the reconcile loop asks again with the same id. A
wish that was taken up is not enforced: a sandbox may pause when idle, and wake when it is used.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from runtools.errors import (
    Conflict,
    DeadlineExceeded,
    HostUnavailable,
    NotFound,
    OutcomeUnknown,
    RunToolsError,
    WaitsForRoom,
)
from runtools.platform.api.calls import Call
from runtools.platform.api.limits import store as limits
from runtools.platform.api.limits.rules import standard, taken
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.api.sandboxes import observe, store
from runtools.platform.api.sandboxes.load import load, until
from runtools.platform.api.sandboxes.settle import LAG_SECONDS, settle
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.snapshots import store as snapshots
from runtools.platform.core import states
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import Observed
from runtools.platform.core.states import Act, Operation, State
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.sandboxes import Rollback

_WANTED = {Act.PAUSE: "paused", Act.RESUME: "running", Act.DESTROY: "stopped"}
_ACTS = {wanted: act for act, wanted in _WANTED.items()}
_ATTEMPTS = 5
_PAUSE_SECONDS = 110.0  # the memory of a large one goes to the disk


async def pause(call: Call, ref: str) -> Record:
    """Keep everything, compute nothing."""
    return await _act(call, ref, Act.PAUSE)


async def resume(call: Call, ref: str, room_seconds: float) -> Record:
    """Go on from where it was paused; for room on its host it waits so long.

    Raises:
        WaitsForRoom: there is none yet; it waits on.
    """
    return await _act(call, ref, Act.RESUME, room_seconds)


async def destroy(call: Call, ref: str) -> Record:
    """End it, and keep nothing of it but its ledger."""
    return await _act(call, ref, Act.DESTROY)


async def rollback(call: Call, ref: str, wanted: Rollback) -> Record:
    """Go back to a snapshot of it; what happened since is gone."""
    platform = call.platform
    record = await load(platform, call.org, ref)
    check_lively(record, Act.ROLLBACK)
    keep = await platform.db.read(snapshots.find, call.org, record.id, wanted.to[:80])
    if keep is None or keep.state != "ready":
        raise NotFound(
            f"{record.id} has no snapshot {wanted.to[:80]!r}",
            hint=f"GET /v1/sandboxes/{record.id}/snapshots lists them",
        )
    await call.begin()
    host = platform.hosts.port(record.host_id)
    observed = await host.rollback(record.id, call.op, call.actor, keep.id)
    return await settle(platform, observed)


def check_lively(record: Record, act: Act) -> None:
    """Refuse an act that no state to come makes legal; running or paused is for the host to say,

    which knows it better than a row that a report may be on its way to.
    """
    if record.state in (State.CREATING, State.STOPPED):
        states.check(act, State(record.state), record.id)


async def _act(call: Call, ref: str, act: Act, room_seconds: float | None = None) -> Record:
    platform = call.platform
    record = await load(platform, call.org, ref)
    if record.state == "stopped" and act is Act.DESTROY:
        return await _give_up_disk(call, record)
    check_lively(record, act)
    again = record.wish_op == call.op and (record.wish_open or record.state == _WANTED[act])
    if not again:
        record = await _wish(call, record, act, call.op)
    reach(f"api.{act}.written")
    return await ask(platform, record, room_seconds)


async def _give_up_disk(call: Call, record: Record) -> Record:
    """What the host keeps of one that has ended by itself need not wait for its time."""
    if (record.ending or {}).get("recoverable_until") is None:
        return record
    platform = call.platform
    await call.begin()
    try:
        observed = await platform.hosts.port(record.host_id).destroy(record.id, call.op, call.actor)
    except NotFound:
        return record  # the host has no trace of it, so there is no disk
    return await settle(platform, observed)


async def _wish(call: Call, record: Record, act: Act, op: str) -> Record:
    platform = call.platform
    wanted = _WANTED[act]
    usual = standard(platform.settings)
    for _ in range(_ATTEMPTS):
        now = platform.clock.now()
        if await platform.db.write(_write_wish, record, wanted, op, call.actor, now, usual):
            return replace(
                record,
                wanted=wanted,
                generation=record.generation + 1,
                wish_op=op,
                wish_actor=call.actor,
            )
        record = await load(platform, call.org, record.id)
    raise Conflict(f"too many acts on {record.id} at once", hint="ask again in a moment")


def _write_wish(
    conn: Transaction,
    record: Record,
    wanted: str,
    op: str,
    actor: str,
    now: datetime,
    usual: Amounts,
) -> bool:
    if wanted == "running":
        seen = store.get(conn, record.id)
        if seen is not None and seen.state == "paused":
            # Its disk is counted while it sleeps; what it takes beside that is new.
            asked = taken([record]).model_copy(update={"disk_mb": 0})
            limits.reserve(conn, record.org_id, asked, usual, [record.id])
    return store.wish(conn, record, wanted, op, actor, now)


async def wake(call: Call, record: Record) -> Record:
    """Let a sandbox that sleeps or is about to go on for the call's sake, where its org has limits to keep.

    Without any the host wakes it by itself, which is one step less. One that is being paused is waited for:
    what it is told meanwhile comes when it sleeps, uncounted or in vain.

    Raises:
        QuotaExceeded: the org runs as much as it may.
        DeadlineExceeded: it is still being paused.
    """
    platform = call.platform
    usual = standard(platform.settings)
    if not await platform.db.read(limits.bounds_what_runs, record.org_id, usual):
        return record
    if record.operation == Operation.PAUSING:
        record = await until(
            platform, record.id, lambda row: row.operation != Operation.PAUSING, _PAUSE_SECONDS
        )
    if record.operation == Operation.PAUSING:
        raise DeadlineExceeded(
            f"{record.id} is still being paused after {_PAUSE_SECONDS:.0f} s",
            hint=f"ask again; runtools sandbox get {record.id} shows when it sleeps",
            details={"operation": record.operation},
        )
    if record.state != State.PAUSED:
        return record
    record = await _wish(call, record, Act.RESUME, new_id("opn"))
    return await ask(platform, record)


async def ask(platform: Platform, record: Record, room_seconds: float | None = None) -> Record:
    """Ask the host for what is wanted of a sandbox that it has.

    Raises:
        WaitsForRoom: a resume does, and whoever looks at the sandbox sees it wait.
        RunToolsError: refused; the wish is closed. `HostUnavailable` leaves it open.
    """
    with platform.about(record.id):
        try:
            observed = await _ask_host(platform, record, room_seconds)
            reach("api.act.asked")
            now = await (
                _gone(platform, record) if observed is None else settle(platform, observed)
            )
        except (HostUnavailable, OutcomeUnknown):
            raise
        except RunToolsError as error:
            if isinstance(error, WaitsForRoom):
                await until(platform, record.id, _moves, LAG_SECONDS)
            await _close(platform, record)
            raise
    await _close(platform, record)
    return now


def _moves(record: Record) -> bool:
    """Whether what its host has told of its waiting has come."""
    return record.operation is not None or record.state != State.PAUSED


async def _ask_host(
    platform: Platform, record: Record, room_seconds: float | None
) -> Observed | None:
    host = platform.hosts.port(record.host_id)
    act = _ACTS[record.wanted]
    if act is Act.PAUSE:
        return await host.pause(record.id, record.wish_op, record.wish_actor)
    if act is Act.RESUME:
        return await host.resume(record.id, record.wish_op, record.wish_actor, room_seconds)
    try:
        return await host.destroy(record.id, record.wish_op, record.wish_actor)
    except NotFound:
        return None  # it is gone, as wanted


async def _gone(platform: Platform, record: Record) -> Record:
    reason = "destroyed; its host had no trace of it"
    at = platform.clock.now()
    now = await platform.db.write(observe.end, record.id, "request", reason, record.wish_actor, at)
    platform.bus.signal(record.id, record.org_id)
    return now or record


async def _close(platform: Platform, record: Record) -> None:
    await platform.db.write(store.close_wish, record.id, record.generation)
