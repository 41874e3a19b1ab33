"""What usage is added up from: what each sandbox came to be, and what it took on its host's disk.

Both are written in the transactions that learn of them: no crash loses or doubles any. What is long gone is
added up by day (`usage_days`), and never changed any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    FromClause,
    Function,
    Over,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)

from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.api.usage.rules import Move, Stretch, millis
from runtools.platform.api.usage.tables import days, moves, stored
from runtools.platform.kit.db import Moment, upsert

LAST_EPOCH = 2**62
_DAY = timedelta(days=1)
_LEAST = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class User:
    """A sandbox that used something."""

    id: str
    name: str | None
    project_id: str
    vcpus: int
    memory_mb: int


def moved(
    conn: Connection, sandbox_id: str, place: tuple[int, int] | None, at: datetime, state: str
) -> None:
    """A sandbox came to be something; without a place the api itself found its end."""
    if state == "creating":
        return  # it is what every sandbox is before anything else, and never again
    epoch, seq = place or (LAST_EPOCH, 0)
    row = {"sandbox_id": sandbox_id, "epoch": epoch, "seq": seq, "at": at, "state": state}
    # What comes too late for a day that is added up already changes it no more.
    gone = exists().where(days.c.sandbox_id == sandbox_id, days.c.since > at - _DAY)
    fresh = select(*(literal(value, moves.c[name].type) for name, value in row.items()))
    conn.execute(
        upsert(conn, moves).from_select(list(row), fresh.where(~gone)).on_conflict_do_nothing()
    )


def seen(conn: Connection, host_id: str, sizes: Mapping[str, int], at: datetime) -> None:
    """What each sandbox takes on a host's disk, in MB; one that is not there takes nothing."""
    known = (
        select(stored.c.sandbox_id, stored.c.since, stored.c.mb)
        .join(sandboxes, sandboxes.c.id == stored.c.sandbox_id)
        .where(sandboxes.c.host_id == host_id, stored.c.until.is_(None))
    )
    before = {row.sandbox_id: (row.since, row.mb) for row in conn.execute(known)}
    changed = {
        sandbox_id: sizes.get(sandbox_id, 0)
        for sandbox_id in {*before, *sizes}
        if sizes.get(sandbox_id, 0) != (before[sandbox_id][1] if sandbox_id in before else 0)
    }
    for sandbox_id in sorted(_keeping(conn, host_id, changed)):
        if sandbox_id in before:
            given_up(conn, sandbox_id, at)
        _open(conn, sandbox_id, changed[sandbox_id], at, before.get(sandbox_id))


def given_up(conn: Connection, sandbox_id: str, at: datetime) -> None:
    """Nothing of it is on the disk any more, or something else than was."""
    mine = and_(stored.c.sandbox_id == sandbox_id, stored.c.until.is_(None))
    since = conn.scalar(select(stored.c.since).where(mine))
    if since is not None:
        conn.execute(update(stored).where(mine).values(until=max(at, since)))


def _open(
    conn: Connection, sandbox_id: str, mb: int, at: datetime, before: tuple[datetime, int] | None
) -> None:
    if not mb:
        return
    since = at if before is None else max(at, before[0] + _LEAST)
    row = {"sandbox_id": sandbox_id, "since": since, "mb": mb}
    # Another process of ours may look at the same moment: one of the two is enough.
    conn.execute(upsert(conn, stored).values(**row).on_conflict_do_nothing())


def _keeping(conn: Connection, host_id: str, ids: Collection[str]) -> list[str]:
    """Those of the host's sandboxes of which something may be on the disk.

    Their rows are held before any of ours is touched, as who takes in a report does it, and in one order.
    """
    if not ids:
        return []
    query = (
        select(sandboxes.c.id, sandboxes.c.state, sandboxes.c.ending)
        .where(sandboxes.c.host_id == host_id, sandboxes.c.id.in_(ids))
        .order_by(sandboxes.c.id)
        .with_for_update(read=True, key_share=True)
    )
    return [
        row.id
        for row in conn.execute(query)
        if row.state != "stopped" or (row.ending or {}).get("recoverable_until") is not None
    ]


def users(
    conn: Connection,
    org_id: str,
    since: datetime,
    until: datetime,
    project_id: str | None,
    after: str,
    limit: int,
) -> list[User]:
    """The org's sandboxes that may have used something in a period, by id."""
    its = moves.c.sandbox_id == sandboxes.c.id
    begun = exists().where(its, moves.c.at < until)
    going = or_(sandboxes.c.state != "stopped", exists().where(its, moves.c.at >= since))
    lay = exists().where(
        stored.c.sandbox_id == sandboxes.c.id,
        stored.c.since < until,
        or_(stored.c.until.is_(None), stored.c.until > since),
    )
    gone = exists().where(
        days.c.sandbox_id == sandboxes.c.id, days.c.since < until, days.c.since > since - _DAY
    )
    used = or_(and_(begun, going), lay, gone)
    query = select(
        sandboxes.c.id,
        sandboxes.c.name,
        sandboxes.c.project_id,
        sandboxes.c.vcpus,
        sandboxes.c.memory_mb,
    ).where(sandboxes.c.org_id == org_id, sandboxes.c.id > after, used)
    if project_id is not None:
        query = query.where(sandboxes.c.project_id == project_id)
    return [User(*row) for row in conn.execute(query.order_by(sandboxes.c.id).limit(limit))]


def moves_of(
    conn: Connection, ids: Collection[str], period: tuple[datetime, datetime]
) -> dict[str, list[Move]]:
    """What sandboxes came to be, each in the order of its host's reports, as far as a period needs it.

    That is what each was when the period began, what it became in it, and the first thing after it. A move
    came when the latest clock up to it says, as for `rules.running`; none comes after the end.
    """
    since, until = period
    its_end = case((moves.c.state == "stopped", 1), else_=0)
    told = (
        select(
            moves.c.sandbox_id,
            moves.c.epoch,
            moves.c.seq,
            moves.c.state,
            _by_report(func.max(moves.c.at), moves).label("came"),
            _by_report(func.sum(its_end), moves).label("ends"),
        )
        .where(moves.c.sandbox_id.in_(ids))
        .subquery()
    )
    lives = (
        select(
            told,
            _by_report(func.lag(told.c.came, type_=Moment()), told).label("before"),
            _by_report(func.lead(told.c.came, type_=Moment()), told).label("after"),
        )
        .where(or_(told.c.ends == 0, and_(told.c.ends == 1, told.c.state == "stopped")))
        .subquery()
    )
    query = (
        select(lives.c.sandbox_id, lives.c.came, lives.c.state)
        .where(
            or_(lives.c.before.is_(None), lives.c.before < until),
            or_(lives.c.after.is_(None), lives.c.after > since),
        )
        .order_by(lives.c.sandbox_id, lives.c.epoch, lives.c.seq)
    )
    found: dict[str, list[Move]] = {sandbox_id: [] for sandbox_id in ids}
    for row in conn.execute(query):
        found[row.sandbox_id].append(Move(millis(row.came), row.state))
    return found


def _by_report(what: Function[Any], rows: FromClause) -> Over[Any]:
    """Of a sandbox's moves up to each, in the order of its host's reports."""
    return what.over(partition_by=rows.c.sandbox_id, order_by=[rows.c.epoch, rows.c.seq])


def stored_of(
    conn: Connection, ids: Collection[str], period: tuple[datetime, datetime], now: int
) -> dict[str, list[Stretch]]:
    """What sandboxes took on the disk in a period; what was last seen holds until now."""
    query = select(stored.c.sandbox_id, stored.c.since, stored.c.until, stored.c.mb).where(
        stored.c.sandbox_id.in_(ids),
        stored.c.since < period[1],
        or_(stored.c.until.is_(None), stored.c.until > period[0]),
    )
    found: dict[str, list[Stretch]] = {sandbox_id: [] for sandbox_id in ids}
    for row in conn.execute(query):
        since = millis(row.since)
        until = max(since, now) if row.until is None else millis(row.until)
        found[row.sandbox_id].append(Stretch(since, until, row.mb))
    return found
