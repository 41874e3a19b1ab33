"""Adding up what is long gone: a sandbox's moves and looks before a midnight become a row a day.

All in one transaction for each sandbox, which nothing can take half of: what is added to the days is taken
from the moves and looks. What goes on over the midnight is cut there, and counts on from it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, delete, func, or_, select, union, update

from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.api.usage.rules import Day, Move, Stretch, added_up, millis, running
from runtools.platform.api.usage.tables import days, moves, stored
from runtools.platform.kit.db import moment, upsert

_DAY = timedelta(days=1)


def old(conn: Connection, before: datetime, after: str, limit: int) -> list[str]:
    """Ids of sandboxes of which something may be added up, from after one on."""
    runs = func.max(case((moves.c.state == "running", 1), else_=0))
    moved = (
        select(moves.c.sandbox_id)
        .where(moves.c.at < before, moves.c.sandbox_id > after)
        .group_by(moves.c.sandbox_id)
        .having(or_(func.count() > 1, runs == 1))
    )
    lay = select(stored.c.sandbox_id).where(stored.c.since < before, stored.c.sandbox_id > after)
    both = union(moved, lay).subquery()
    query = select(both.c.sandbox_id).order_by(both.c.sandbox_id).limit(limit)
    return list(conn.scalars(query))


def add_up(conn: Connection, sandbox_id: str, before: datetime) -> None:
    """Add up what lies before a midnight (UTC) of one sandbox."""
    # Its row first, as who takes in a report or looks at the disks does it.
    conn.execute(select(sandboxes.c.id).where(sandboxes.c.id == sandbox_id).with_for_update())
    ran, lay = _ran(conn, sandbox_id, before), _lay(conn, sandbox_id, before)
    for day in added_up(ran, lay, millis(before)):
        fresh = upsert(conn, days).values(**_row(sandbox_id, day))
        more = {
            name: days.c[name] + fresh.excluded[name] for name in ("running_ms", "stored_mb_ms")
        }
        conn.execute(fresh.on_conflict_do_update(index_elements=["sandbox_id", "since"], set_=more))


def _row(sandbox_id: str, day: Day) -> dict[str, Any]:
    return {
        "sandbox_id": sandbox_id,
        "since": moment(day.since * 1000),
        "running_ms": day.running_ms,
        "stored_mb_ms": day.stored_mb_ms,
    }


def _ran(conn: Connection, sandbox_id: str, before: datetime) -> list[Stretch]:
    """When it ran before; of its moves the last one is left, by which it is known what it was then."""
    mine = moves.c.sandbox_id == sandbox_id
    query = select(moves).where(mine).order_by(moves.c.epoch, moves.c.seq)
    came: datetime | None = None
    past: list[Any] = []
    for row in conn.execute(query):
        came = row.at if came is None else max(came, row.at)  # as `rules.running` says
        if came >= before or (past and past[-1].state == "stopped"):
            break
        past.append(row)
    if not past:
        return []
    told = [Move(millis(row.at), row.state) for row in past]
    last = past[-1]
    earlier = or_(
        moves.c.epoch < last.epoch, (moves.c.epoch == last.epoch) & (moves.c.seq < last.seq)
    )
    conn.execute(delete(moves).where(mine, earlier))
    latest = before if last.state == "running" else max(row.at for row in past)
    itself = (moves.c.epoch == last.epoch) & (moves.c.seq == last.seq)
    conn.execute(update(moves).where(mine, itself).values(at=latest))
    return list(running(told, millis(before)))


def _lay(conn: Connection, sandbox_id: str, before: datetime) -> list[Stretch]:
    """What it took on the disk before; what it takes on from then is left."""
    mine = (stored.c.sandbox_id == sandbox_id) & (stored.c.since < before)
    found = []
    for row in conn.execute(select(stored).where(mine)):
        until = before if row.until is None else min(row.until, before)
        found.append(Stretch(millis(row.since), millis(until), row.mb))
    conn.execute(delete(stored).where(mine, stored.c.until <= before))
    conn.execute(update(stored).where(mine).values(since=before))
    return found


def days_of(
    conn: Connection, ids: Collection[str], period: tuple[datetime, datetime]
) -> dict[str, list[Day]]:
    """The days of a period on which sandboxes used something, of those that are added up."""
    query = select(days).where(
        days.c.sandbox_id.in_(ids), days.c.since < period[1], days.c.since > period[0] - _DAY
    )
    found: dict[str, list[Day]] = {sandbox_id: [] for sandbox_id in ids}
    for row in conn.execute(query):
        found[row.sandbox_id].append(Day(millis(row.since), row.running_ms, row.stored_mb_ms))
    return found
