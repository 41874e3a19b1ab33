"""Runs and their logs in the database.

Whoever changes a run or its log holds the lock of the run's row, so that the numbers of its events have no
gap and
no event is there without what it says of the run. Where both are locked, the thread's row comes before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningInsert

from runtools.platform.api.idempotency.rules import under_way
from runtools.platform.api.runs.tables import Event, Record, run_events, run_spending, runs
from runtools.platform.core.access import Caller
from runtools.platform.core.ports.worker import OWN_KEYS
from runtools.platform.core.runs import ENDS, OPEN
from runtools.platform.kit.db import UPSERTS, Upsert

_HAS_FRONT = runs.c.brought.is_not(None).label("has_front")
_COLUMNS = [_HAS_FRONT if one.name == "has_front" else runs.c[one.name] for one in fields(Record)]
_EVENT = [run_events.c[field.name] for field in fields(Event)]
_IS_OPEN = runs.c.status.in_(sorted(OPEN))
_NAMES = [field.name for field in fields(Event)]
# Said for every event of every run: written once, so that SQLAlchemy need not build and compare them anew.
_KNOWN = select(*_COLUMNS).where(runs.c.id == bindparam("run"))
_HELD = _KNOWN.with_for_update()
_PUT = insert(run_events)
_SPENT = (run_spending.c.tokens, run_spending.c.nano_usd)


def _spending(added: Upsert) -> ReturningInsert[Any]:
    """Adds to what an org spent in a month, and says what that is now."""
    more = {one.name: one + added.excluded[one.name] for one in _SPENT}
    return added.on_conflict_do_update(index_elements=["org_id", "month"], set_=more).returning(
        *_SPENT
    )


_SPEND = {name: _spending(make(run_spending)) for name, make in UPSERTS.items()}
_IN_A_RUN = frozenset({"sandbox:write", "sandbox:read", "files:read", "files:write"})


@dataclass(frozen=True, slots=True)
class Sought:
    """Which runs a list is of."""

    statuses: Sequence[str] = ()
    agent: str | None = None
    thread_id: str | None = None
    project_id: str | None = None


# --- runs ---


def add(conn: Connection, record: Record, brought: Mapping[str, Any] | None) -> None:
    """A new run, and what its front end brings along.

    Raises:
        Unavailable: the same act is making it at this moment.
    """
    row = {**asdict(record), "brought": brought}
    del row["has_front"]
    try:
        conn.execute(insert(runs).values(**row))
    except IntegrityError as exc:
        raise under_way() from exc


def brought(conn: Connection, record: Record) -> dict[str, Any] | None:
    """What a run's front end has brought along."""
    if not record.has_front:
        return None
    mine = (runs.c.org_id == record.org_id) & (runs.c.id == record.id)
    found: dict[str, Any] | None = conn.scalar(select(runs.c.brought).where(mine))
    return found


def made_by(conn: Connection, org_id: str, op: str) -> Record | None:
    """The run that an act has made."""
    query = select(*_COLUMNS).where(runs.c.org_id == org_id, runs.c.op == op)
    row = conn.execute(query).first()
    return None if row is None else Record(*row)


def having(conn: Connection, org_id: str, thread_id: str, key: str) -> tuple[Record, int] | None:
    """The thread's run with an event of that key, and the last event before it."""
    query = (
        select(*_COLUMNS, run_events.c.seq)
        .join(run_events, run_events.c.run_id == runs.c.id)
        .where(runs.c.org_id == org_id, runs.c.thread_id == thread_id)
        .where(run_events.c.key == key)
    )
    row = conn.execute(query).first()
    return None if row is None else (Record(*row[:-1]), row[-1] - 1)


def find(conn: Connection, org_id: str, run_id: str) -> Record | None:
    """The org's run of that id."""
    query = select(*_COLUMNS).where(runs.c.org_id == org_id, runs.c.id == run_id)
    row = conn.execute(query).first()
    return None if row is None else Record(*row)


def locked(conn: Connection, org_id: str, run_id: str) -> Record | None:
    """The org's run of that id, which nobody else changes until the transaction's end."""
    query = select(*_COLUMNS).where(runs.c.org_id == org_id, runs.c.id == run_id)
    row = conn.execute(query.with_for_update()).first()
    return None if row is None else Record(*row)


def page(
    conn: Connection, org_id: str, sought: Sought, below: tuple[datetime, str] | None, limit: int
) -> list[Record]:
    """The org's runs, newest first, after a place in that order."""
    query = select(*_COLUMNS).where(runs.c.org_id == org_id)
    if sought.statuses:
        query = query.where(runs.c.status.in_(sought.statuses))
    if sought.agent is not None:
        query = query.where(or_(runs.c.agent_slug == sought.agent, runs.c.agent_id == sought.agent))
    for column, value in (
        (runs.c.thread_id, sought.thread_id),
        (runs.c.project_id, sought.project_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if below is not None:
        at, run_id = below
        beside = and_(runs.c.created_at == at, runs.c.id < run_id)
        query = query.where(or_(runs.c.created_at < at, beside))
    query = query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    return [Record(*row) for row in conn.execute(query)]


def of_thread(
    conn: Connection,
    org_id: str,
    thread_id: str,
    above: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[Record]:
    """Runs of the org's thread, the oldest first, after a place in that order."""
    query = select(*_COLUMNS).where(runs.c.org_id == org_id, runs.c.thread_id == thread_id)
    if above is not None:
        at, run_id = above
        beside = and_(runs.c.created_at == at, runs.c.id > run_id)
        query = query.where(or_(runs.c.created_at > at, beside))
    query = query.order_by(runs.c.created_at, runs.c.id).limit(limit)
    return [Record(*row) for row in conn.execute(query)]


def open_of(conn: Connection, org_id: str, thread_id: str) -> list[str]:
    """The ids of the thread's runs that have not ended."""
    mine = (runs.c.org_id == org_id) & (runs.c.thread_id == thread_id)
    query = select(runs.c.id).where(mine, _IS_OPEN).order_by(runs.c.created_at, runs.c.id)
    return list(conn.scalars(query))


def continued(conn: Connection, record: Record) -> bool:
    """Whether another run goes on from that one."""
    mine = (runs.c.org_id == record.org_id) & (runs.c.thread_id == record.thread_id)
    query = select(runs.c.id).where(mine, runs.c.continues == record.id)
    return conn.execute(query.limit(1)).first() is not None


def remove_of(conn: Connection, org_id: str, thread_id: str) -> None:
    """Delete the runs of the org's thread with their logs. What they spent stays known."""
    mine = (runs.c.org_id == org_id) & (runs.c.thread_id == thread_id)
    conn.execute(delete(run_events).where(run_events.c.run_id.in_(select(runs.c.id).where(mine))))
    conn.execute(delete(runs).where(mine))


def change(conn: Connection, record: Record, values: Mapping[str, Any]) -> None:
    """Set columns of a run whose row is locked."""
    here = {"org": record.org_id, "run": record.id}
    conn.execute(_setting(tuple(sorted(values))), {**values, **here})


@cache
def _setting(names: tuple[str, ...]) -> Update:
    """Sets these columns; as few sets of them are ever set together as there are kinds of changes."""
    mine = (runs.c.org_id == bindparam("org")) & (runs.c.id == bindparam("run"))
    return update(runs).where(mine).values({name: bindparam(name) for name in names})


# --- who drives them ---


def held(conn: Connection, run_id: str) -> Record | None:
    """A run by its id alone, for whoever has its lease; nobody else changes it meanwhile."""
    row = conn.execute(_HELD, {"run": run_id}).first()
    return None if row is None else Record(*row)


def unmoved(conn: Connection, seen: Record) -> Record | None:
    """The same; None: somebody has taken it, or let go of it, since it was seen like that."""
    record = held(conn, seen.id)
    if record is None:
        return None
    was = (seen.status, seen.lease, seen.worker_id)
    return record if (record.status, record.lease, record.worker_id) == was else None


def known(conn: Connection, run_id: str) -> Record | None:
    """The same, as it is at the moment."""
    row = conn.execute(_KNOWN, {"run": run_id}).first()
    return None if row is None else Record(*row)


def offerable(conn: Connection, limit: int) -> list[Record]:
    """Queued runs whose turn it is, the one that waits the longest first."""
    query = (
        select(*_COLUMNS)
        .where(runs.c.status == "queued", ~_is_behind())
        .order_by(runs.c.queued_at, runs.c.id)
        .limit(limit)
    )
    return [Record(*row) for row in conn.execute(query)]


def behind(conn: Connection, run_ids: Sequence[str]) -> set[str]:
    """Which of these runs wait for their turn in their thread or lane."""
    return set(conn.scalars(select(runs.c.id).where(runs.c.id.in_(run_ids), _is_behind())))


def is_next(conn: Connection, record: Record) -> bool:
    """Whether nothing stands before a run in its thread and its lane."""
    before = or_(
        runs.c.created_at < record.created_at,
        and_(runs.c.created_at == record.created_at, runs.c.id < record.id),
    )
    in_thread = and_(runs.c.thread_id == record.thread_id, _IS_OPEN, before)
    ways = [in_thread]
    if record.lane is not None:
        same = runs.c.lane == record.lane
        busy = or_(runs.c.status == "running", and_(runs.c.status == "queued", before))
        ways.append(and_(same, busy))
    query = select(runs.c.id).where(runs.c.id != record.id, or_(*ways)).limit(1)
    return conn.execute(query).first() is None


def _is_behind() -> Any:
    """Whether a run is held up: by one before it in its thread or lane, or a driven one of its lane."""
    other = runs.alias("other")
    before = or_(
        other.c.created_at < runs.c.created_at,
        and_(other.c.created_at == runs.c.created_at, other.c.id < runs.c.id),
    )
    is_open = other.c.status.in_(sorted(OPEN))
    in_thread = and_(other.c.thread_id == runs.c.thread_id, is_open, before)
    busy = or_(other.c.status == "running", and_(other.c.status == "queued", before))
    in_lane = and_(other.c.lane == runs.c.lane, busy)
    return exists().where(other.c.id != runs.c.id, or_(in_thread, in_lane))


def driven_by(conn: Connection, worker_id: str) -> list[Record]:
    """The runs that a worker drives."""
    query = select(*_COLUMNS).where(runs.c.worker_id == worker_id, runs.c.status == "running")
    return [Record(*row) for row in conn.execute(query)]


def driven_but_by(conn: Connection, workers: Sequence[str], limit: int) -> list[Record]:
    """Runs that are driven, but by none of these workers."""
    query = select(*_COLUMNS).where(runs.c.status == "running", runs.c.worker_id.not_in(workers))
    return [Record(*row) for row in conn.execute(query.limit(limit))]


def uncancelled(conn: Connection, queued_before: datetime, limit: int) -> list[Record]:
    """Runs that are to be cancelled, and that no worker has taken for that since."""
    query = select(*_COLUMNS).where(
        runs.c.status == "queued", runs.c.cancel_requested, runs.c.queued_at < queued_before
    )
    return [Record(*row) for row in conn.execute(query.limit(limit))]


def caller(conn: Connection, digest: str) -> Caller | None:
    """The run that is driven with the token of that digest."""
    query = select(runs.c.id, runs.c.org_id, runs.c.sandbox_id).where(
        runs.c.token_digest == digest, runs.c.status == "running"
    )
    row = conn.execute(query).first()
    if row is None:
        return None
    return Caller(
        kind="run",
        id=row.id,
        digest=digest,
        org_id=row.org_id,
        scopes=_IN_A_RUN,
        sandbox_id=row.sandbox_id,
    )


def counts(conn: Connection) -> dict[str, int]:
    """How many runs of all orgs are queued, driven and waiting."""
    query = select(runs.c.status, func.count()).where(_IS_OPEN).group_by(runs.c.status)
    return {str(status): int(count) for status, count in conn.execute(query)}


# --- logs ---


def put(conn: Connection, record: Record, events: Sequence[Event]) -> None:
    """Append events to the log of a run whose row is locked."""
    if events:
        rows = [{name: getattr(event, name) for name in _NAMES} for event in events]
        conn.execute(_PUT, [row | {"run_id": record.id} for row in rows])


def under(conn: Connection, record: Record, keys: Sequence[str]) -> dict[str, Event]:
    """What stands in a run's log under those of the keys that are there."""
    named = {f"key_{n}": key for n, key in enumerate(keys)}
    rows = conn.execute(_under(len(keys)), {"run": record.id, **named})
    return {event.key: event for event in (Event(*row) for row in rows)}


@cache
def _under(count: int) -> Select[Any]:
    """What stands under so many keys; few events are ever appended at once."""
    keys: list[Any] = [bindparam(f"key_{n}") for n in range(count)]
    return select(*_EVENT).where(
        run_events.c.run_id == bindparam("run"), run_events.c.key.in_(keys)
    )


def of_types(conn: Connection, record: Record, types: Sequence[str], after: int = 0) -> list[Event]:
    """The events of some types in a run's log, after a number."""
    query = select(*_EVENT).where(
        run_events.c.run_id == record.id, run_events.c.type.in_(types), run_events.c.seq > after
    )
    return [Event(*row) for row in conn.execute(query.order_by(run_events.c.seq))]


def others_after(conn: Connection, record: Record, seq: int) -> bool:
    """Whether the api itself, for somebody, has appended to a run's log after a number."""
    query = select(run_events.c.seq).where(
        run_events.c.run_id == record.id,
        run_events.c.seq > seq,
        run_events.c.key.startswith(OWN_KEYS, autoescape=True),
    )
    return conn.execute(query.limit(1)).first() is not None


# --- what they spent ---


def spend(
    conn: Connection, record: Record, month: str, tokens: int, nano_usd: int
) -> tuple[int, int]:
    """Add to what the org spent in a month; what that is now, as `spent` tells it."""
    row = {"org_id": record.org_id, "month": month, "tokens": tokens, "nano_usd": nano_usd}
    sums = conn.execute(_SPEND[conn.dialect.name], row).one()
    return int(sums.tokens), int(sums.nano_usd)


def spent(conn: Connection, org_id: str, month: str) -> tuple[int, int]:
    """What the org spent in a month: tokens, and billionths of a US dollar."""
    query = select(run_spending.c.tokens, run_spending.c.nano_usd).where(
        run_spending.c.org_id == org_id, run_spending.c.month == month
    )
    row = conn.execute(query).first()
    return (0, 0) if row is None else (int(row.tokens), int(row.nano_usd))


def is_over(record: Record) -> bool:
    """Whether a run has ended."""
    return record.status in ENDS
