"""Limits in the database, and what counts against them.

A reservation locks its org's row first, before any sandbox and before the org's own row, in every
transaction alike: so two never wait for each other, and none sees a sum that another is changing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    String,
    Table,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from runtools.platform.api.limits.rules import check
from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.api.snapshots.store import snapshots
from runtools.platform.kit.db import metadata, upsert
from runtools.sdk.shapes.limits import Amounts

org_limits = Table(
    "org_limits",
    metadata,
    Column("org_id", String(24), ForeignKey("orgs.id"), primary_key=True),
    # None: the platform's default. 0: no limit.
    Column("sandboxes", Integer),
    Column("vcpus", Integer),
    Column("memory_mb", Integer),
    Column("disk_mb", Integer),
    Column("snapshots", Integer),
    Column("agent_tokens", Integer),
    Column("agent_cents", Integer),
)

_NAMES = tuple(Amounts.model_fields)
_SET = [org_limits.c[name] for name in _NAMES]
_OF_ORG = select(*_SET).where(org_limits.c.org_id == bindparam("org"))

# A sandbox runs from the wish that it do to the sight of its pause or end; also while it is on its way, or
# waits for room on its host, where its wish was answered by that.
_RUNS = or_(
    sandboxes.c.state.in_(("creating", "running")),
    and_(sandboxes.c.state == "paused", sandboxes.c.wish_open, sandboxes.c.wanted == "running"),
    and_(sandboxes.c.state == "paused", sandboxes.c.operation.in_(("queued", "resuming"))),
)


def limits(conn: Connection, org_id: str, standard: Amounts) -> Amounts:
    """What the org may have: what was set for it, else the standard."""
    row = conn.execute(_OF_ORG, {"org": org_id}).first()
    if row is None:
        return standard
    said = {name: value for name, value in zip(_NAMES, row, strict=True) if value is not None}
    return standard.model_copy(update=said)


def bounds_what_runs(conn: Connection, org_id: str, standard: Amounts) -> bool:
    """Whether the org has a limit on what runs: then nothing of it wakes uncounted."""
    allowed = limits(conn, org_id, standard)
    return bool(allowed.sandboxes or allowed.vcpus or allowed.memory_mb)


def used(conn: Connection, org_id: str, but: Collection[str] = ()) -> Amounts:
    """What the org has, certain sandboxes apart; not what it spent."""
    living = select(
        func.coalesce(func.sum(case((_RUNS, 1), else_=0)), 0),
        func.coalesce(func.sum(case((_RUNS, sandboxes.c.vcpus), else_=0)), 0),
        func.coalesce(func.sum(case((_RUNS, sandboxes.c.memory_mb), else_=0)), 0),
        func.coalesce(func.sum(sandboxes.c.disk_mb), 0),
    ).where(sandboxes.c.org_id == org_id, sandboxes.c.state != "stopped")
    if but:
        living = living.where(sandboxes.c.id.not_in(but))
    kept = select(func.count()).where(snapshots.c.org_id == org_id, snapshots.c.state != "dropped")
    running, vcpus, memory_mb, disk_mb = conn.execute(living).one()
    return Amounts(
        sandboxes=int(running),
        vcpus=int(vcpus),
        memory_mb=int(memory_mb),
        disk_mb=int(disk_mb),
        snapshots=int(conn.scalar(kept) or 0),
    )


def reserve(
    conn: Connection,
    org_id: str,
    asked: Amounts,
    standard: Amounts,
    but: Collection[str] = (),
) -> None:
    """Let a wish be written in this transaction, if the org may have what it asks for beside the rest.

    ``but``: sandboxes that ``asked`` speaks of already.

    Raises:
        QuotaExceeded: it may not; nothing is written.
    """
    allowed = limits(conn, org_id, standard)
    if not any(getattr(allowed, name) and getattr(asked, name) for name in _NAMES):
        return
    _lock(conn, org_id)
    # Read again: what was set or made meanwhile is seen now.
    check(limits(conn, org_id, standard), used(conn, org_id, but), asked)


def change(conn: Connection, org_id: str, values: Mapping[str, int | None]) -> None:
    """Set limits of an org."""
    _lock(conn, org_id)
    if values:
        conn.execute(update(org_limits).where(org_limits.c.org_id == org_id).values(**dict(values)))


def _lock(conn: Connection, org_id: str) -> None:
    conn.execute(upsert(conn, org_limits).values(org_id=org_id).on_conflict_do_nothing())
    mine = org_limits.c.org_id == org_id
    conn.execute(select(org_limits.c.org_id).where(mine).with_for_update())
