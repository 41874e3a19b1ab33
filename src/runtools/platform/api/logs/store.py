"""Logs of runs in the database, a piece at a time: a piece has a bound in bytes, however large events are.

It has one event at least, so that it always goes on; what is read of an event's size is its length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, func, or_, select

from runtools.platform.api.runs.tables import Event, Record, run_events, runs

PIECE_BYTES = 2 << 20
_EVENT = [run_events.c[field.name] for field in fields(Event)]
_SIZE = (func.length(run_events.c.data) + func.coalesce(func.length(run_events.c.wire), 0)).label(
    "size"
)
_OF_ORG = run_events.join(runs, runs.c.id == run_events.c.run_id)


@dataclass(frozen=True, slots=True)
class Place:
    """An event's place in the logs of its thread, which follow each other as its runs did."""

    at: datetime
    run_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a log, or of several.

    Attributes:
        last: the place of the last event.
        more: whether anything may come after it.
    """

    events: list[Event]
    last: Place | None
    more: bool


def events(
    conn: Connection, org_id: str, run_id: str, after: int, limit: int = 500
) -> tuple[list[Event], bool]:
    """A piece of the log of the org's run after a number, and whether there may be more."""
    given = {"org": org_id, "run": run_id, "after": after, "most": limit, "bytes": PIECE_BYTES}
    rows = conn.execute(_LOG, given).all()
    found = [Event(*row[:-1]) for row in rows]
    return found, bool(rows) and (len(rows) == limit or rows[-1][-1] >= PIECE_BYTES)


def of_thread(
    conn: Connection,
    org_id: str,
    thread_id: str,
    types: Sequence[str],
    after: Place | None,
    before: Record | None = None,
    limit: int = 500,
) -> Piece:
    """A piece of the logs of the org's thread, of some types, run after run.

    Args:
        after: the place of the last event that is known.
        before: only of runs that came before this one.
    """
    query = select(runs.c.created_at, run_events.c.run_id, run_events.c.seq)
    query = _limited(query.select_from(_OF_ORG), org_id, thread_id, types, after, before)
    order = (runs.c.created_at, run_events.c.run_id, run_events.c.seq)
    # First which, then how large: all that is sorted would be measured otherwise.
    places = query.order_by(*order).limit(limit + 1).subquery()
    found_at = and_(run_events.c.run_id == places.c.run_id, run_events.c.seq == places.c.seq)
    sized = select(places, _SIZE).select_from(places.join(run_events, found_at)).subquery()
    upto = _upto(sized, sized.c.created_at, sized.c.run_id, sized.c.seq)
    there = and_(run_events.c.run_id == upto.c.run_id, run_events.c.seq == upto.c.seq)
    wanted = (
        select(*_EVENT, upto.c.created_at, upto.c.upto)
        .select_from(run_events.join(upto, there))
        .where(upto.c.upto - upto.c.size < PIECE_BYTES)
        .order_by(upto.c.created_at, upto.c.run_id, upto.c.seq)
    )
    rows = conn.execute(wanted).all()
    if not rows:
        return Piece([], None, more=False)
    more, rows = len(rows) > limit or rows[-1][-1] >= PIECE_BYTES, rows[:limit]
    found = [Event(*row[:-2]) for row in rows]
    return Piece(found, Place(rows[-1][-2], found[-1].run_id, found[-1].seq), more)


def last_of(conn: Connection, record: Record, kind: str) -> tuple[Event, Place] | None:
    """The last event of a type in the thread's logs of a run and those before it."""
    query = select(*_EVENT, runs.c.created_at).select_from(_OF_ORG)
    query = _limited(query, record.org_id, record.thread_id, (kind,), None, record, beside=True)
    order = (runs.c.created_at.desc(), run_events.c.run_id.desc(), run_events.c.seq.desc())
    row = conn.execute(query.order_by(*order).limit(1)).first()
    if row is None:
        return None
    found = Event(*row[:-1])
    return found, Place(row[-1], found.run_id, found.seq)


def weight(conn: Connection, record: Record, types: Sequence[str], after: Place | None) -> int:
    """How large the logs of a run and of those before it in its thread are, after a place."""
    query = select(func.coalesce(func.sum(_SIZE), 0)).select_from(_OF_ORG)
    query = _limited(query, record.org_id, record.thread_id, types, after, record, beside=True)
    return int(conn.scalar(query) or 0)


def place_of(conn: Connection, record: Record, run_id: str, seq: int) -> Place | None:
    """The place of an event of a run in the same thread; None: it has no such run."""
    query = select(runs.c.created_at).where(
        runs.c.org_id == record.org_id, runs.c.thread_id == record.thread_id, runs.c.id == run_id
    )
    row = conn.execute(query).first()
    return None if row is None else Place(row[0], run_id, seq)


def _limited(
    query: Select[Any],
    org_id: str,
    thread_id: str,
    types: Sequence[str],
    after: Place | None,
    before: Record | None,
    *,
    beside: bool = False,
) -> Select[Any]:
    """The logs of the thread in that part; ``beside``: with the run that is the border."""
    query = query.where(runs.c.org_id == org_id, runs.c.thread_id == thread_id)
    query = query.where(run_events.c.type.in_(types))
    if after is not None:
        later = or_(
            runs.c.created_at > after.at,
            and_(runs.c.created_at == after.at, runs.c.id > after.run_id),
            and_(runs.c.id == after.run_id, run_events.c.seq > after.seq),
        )
        query = query.where(later)
    if before is not None:
        same = runs.c.created_at == before.created_at
        last = runs.c.id <= before.id if beside else runs.c.id < before.id
        query = query.where(or_(runs.c.created_at < before.created_at, and_(same, last)))
    return query


def _upto(sized: Any, *order: Any) -> Any:
    """With how many bytes there are up to each, itself included."""
    return select(sized, func.sum(sized.c.size).over(order_by=order).label("upto")).subquery()


def _log() -> Select[Any]:
    sized = (
        select(run_events.c.seq, _SIZE)
        .select_from(_OF_ORG)
        .where(runs.c.org_id == bindparam("org"), runs.c.id == bindparam("run"))
        .where(run_events.c.seq > bindparam("after"))
        .order_by(run_events.c.seq)
        .limit(bindparam("most"))
        .subquery()
    )
    upto = _upto(sized, sized.c.seq)
    there = and_(run_events.c.run_id == bindparam("run"), run_events.c.seq == upto.c.seq)
    return (
        select(*_EVENT, upto.c.upto)
        .select_from(run_events.join(upto, there))
        .where(upto.c.upto - upto.c.size < bindparam("bytes"))
        .order_by(run_events.c.seq)
    )


_LOG = _log()
