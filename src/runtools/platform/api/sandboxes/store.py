"""Sandboxes in the database: queries only, every one within an org or by an id of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
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

from runtools.errors import NameTaken
from runtools.platform.api.guests import store as guests
from runtools.platform.api.idempotency.rules import under_way
from runtools.platform.api.sandboxes.tables import Record, sandbox_tags, sandboxes

_COLUMNS = [sandboxes.c[field.name] for field in fields(Record)]
_ALIVE = sandboxes.c.state != "stopped"

_BY_ID = select(*_COLUMNS).where(
    sandboxes.c.org_id == bindparam("org"), sandboxes.c.id == bindparam("ref")
)
# A name means the living sandbox that bears it, else the latest that bore it.
_BY_NAME = (
    select(*_COLUMNS)
    .where(sandboxes.c.org_id == bindparam("org"), sandboxes.c.name == bindparam("ref"))
    .order_by(_ALIVE.desc(), sandboxes.c.created_at.desc(), sandboxes.c.id.desc())
    .limit(1)
)
_ANY = select(*_COLUMNS).where(sandboxes.c.id == bindparam("id"))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sandboxes a list shows. No states: those that live."""

    states: Sequence[str] = ()
    tags: Sequence[tuple[str, str]] = ()
    template: str | None = None
    name: str | None = None
    project_id: str | None = None


def by_id(conn: Connection, org_id: str, sandbox_id: str) -> Record | None:
    """The org's sandbox of that id."""
    row = (conn.execute(_BY_ID, {"org": org_id, "ref": sandbox_id})).first()
    return None if row is None else Record(*row)


def by_name(conn: Connection, org_id: str, name: str) -> Record | None:
    """The org's living sandbox of that name, else the latest that bore it."""
    row = (conn.execute(_BY_NAME, {"org": org_id, "ref": name})).first()
    return None if row is None else Record(*row)


def get(conn: Connection, sandbox_id: str) -> Record | None:
    """A sandbox whose id is known to be the caller's to see."""
    row = (conn.execute(_ANY, {"id": sandbox_id})).first()
    return None if row is None else Record(*row)


def which(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Those of the ids that a sandbox of any org bears."""
    query = select(sandboxes.c.id).where(sandboxes.c.id.in_(ids))
    return set(conn.scalars(query))


def locked(conn: Connection, sandbox_id: str) -> Record | None:
    """A sandbox that nobody else changes before the transaction's end."""
    row = (conn.execute(_ANY.with_for_update(), {"id": sandbox_id})).first()
    return None if row is None else Record(*row)


def born_by(conn: Connection, org_id: str, op: str) -> list[Record]:
    """The sandboxes that an act made, if it has been done before."""
    query = (
        select(*_COLUMNS)
        .where(sandboxes.c.org_id == org_id, sandboxes.c.born_op == op)
        .order_by(sandboxes.c.born_n)
    )
    return [Record(*row) for row in conn.execute(query)]


def page(
    conn: Connection,
    org_id: str,
    wanted: Filter,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Record]:
    """The org's sandboxes, newest first, after a place in that order."""
    query = select(*_COLUMNS).where(sandboxes.c.org_id == org_id)
    query = query.where(sandboxes.c.state.in_(wanted.states) if wanted.states else _ALIVE)
    for column, value in (
        (sandboxes.c.template, wanted.template),
        (sandboxes.c.name, wanted.name),
        (sandboxes.c.project_id, wanted.project_id),
    ):
        if value is not None:
            query = query.where(column == value)
    for key, value in wanted.tags:
        tagged = exists().where(
            sandbox_tags.c.sandbox_id == sandboxes.c.id,
            sandbox_tags.c.key == key,
            sandbox_tags.c.value == value,
        )
        query = query.where(tagged)
    if after is not None:
        at, sandbox_id = after
        older = sandboxes.c.created_at < at
        beside = and_(sandboxes.c.created_at == at, sandboxes.c.id < sandbox_id)
        query = query.where(or_(older, beside))
    query = query.order_by(sandboxes.c.created_at.desc(), sandboxes.c.id.desc()).limit(limit)
    return [Record(*row) for row in conn.execute(query)]


def add(conn: Connection, record: Record) -> None:
    """A new sandbox: the wish that it be.

    Raises:
        NameTaken: a living sandbox of the org bears the name.
        Unavailable: the same act is making it at this moment.
    """
    try:
        conn.execute(insert(sandboxes).values(**asdict(record)))
    except IntegrityError as exc:
        if "born_op" in str(exc.orig):  # no name has an underscore
            raise under_way() from exc
        raise name_taken(record.name) from exc
    _add_tags(conn, record.id, record.tags)


def wish(conn: Connection, record: Record, wanted: str, op: str, actor: str, now: datetime) -> bool:
    """Replace the wish, if nobody has replaced it since the record was read."""
    changed = conn.execute(
        update(sandboxes)
        .where(sandboxes.c.id == record.id, sandboxes.c.generation == record.generation)
        .values(
            wanted=wanted,
            generation=record.generation + 1,
            wish_op=op,
            wish_actor=actor,
            wish_open=True,
            wished_at=now,
        )
    )
    return bool(changed.rowcount == 1)


def close_wish(conn: Connection, sandbox_id: str, generation: int) -> None:
    """The host has taken the wish up, or refused it; a newer wish stays open."""
    conn.execute(
        update(sandboxes)
        .where(sandboxes.c.id == sandbox_id, sandboxes.c.generation == generation)
        .values(wish_open=False)
    )


def set_egress(conn: Connection, record: Record, internet: bool, rules: Mapping[str, Any]) -> bool:
    """Replace the egress policy, if nobody has replaced it since the record was read."""
    changed = conn.execute(
        update(sandboxes)
        .where(
            sandboxes.c.id == record.id,
            sandboxes.c.egress_generation == record.egress_generation,
        )
        .values(
            internet=internet,
            egress=dict(rules),
            egress_generation=record.egress_generation + 1,
            egress_open=True,
        )
    )
    return bool(changed.rowcount == 1)


def close_egress(conn: Connection, sandbox_id: str, generation: int) -> None:
    """The host has that policy in force, or never will; a newer one stays open."""
    conn.execute(
        update(sandboxes)
        .where(sandboxes.c.id == sandbox_id, sandboxes.c.egress_generation == generation)
        .values(egress_open=False)
    )


def outrank_egress(conn: Connection, record: Record, held: int) -> None:
    """Make the policy of a row newer than the one that its host has, unless it was replaced meanwhile."""
    conn.execute(
        update(sandboxes)
        .where(
            sandboxes.c.id == record.id,
            sandboxes.c.egress_generation == record.egress_generation,
            sandboxes.c.egress_generation <= held,
        )
        .values(egress_generation=held + 1, egress_open=True)
    )


def open_egress(conn: Connection, limit: int) -> list[Record]:
    """Sandboxes whose egress policy no host has taken up."""
    query = (
        select(*_COLUMNS)
        .where(sandboxes.c.egress_open, sandboxes.c.state != "creating")
        .order_by(sandboxes.c.egress_generation, sandboxes.c.id)
        .limit(limit)
    )
    return [Record(*row) for row in conn.execute(query)]


def open_wishes(conn: Connection, before: datetime, limit: int) -> list[Record]:
    """Wishes that no host has taken up, the oldest first."""
    query = (
        select(*_COLUMNS)
        .where(sandboxes.c.wish_open, sandboxes.c.wished_at < before)
        .order_by(sandboxes.c.wished_at, sandboxes.c.born_n)
        .limit(limit)
    )
    return [Record(*row) for row in conn.execute(query)]


def unseen_in(conn: Connection, host_id: str, epoch: int) -> list[Record]:
    """Living sandboxes of which the host's reports do not tell how they are: of one that was reported

    before, the host has said nothing in its present epoch, or what it said was passed over.
    """
    silent = and_(
        sandboxes.c.epoch >= 0, sandboxes.c.epoch != epoch, sandboxes.c.wish_open.is_(False)
    )
    query = select(*_COLUMNS).where(
        sandboxes.c.host_id == host_id, _ALIVE, or_(silent, sandboxes.c.missed_seq.is_not(None))
    )
    return [Record(*row) for row in conn.execute(query)]


def miss(conn: Connection, sandbox_id: str, place: tuple[int, int]) -> None:
    """A report of that place was passed over; no matter, where a newer one was taken in."""
    epoch, seq = place
    older = or_(sandboxes.c.epoch < epoch, and_(sandboxes.c.epoch == epoch, sandboxes.c.seq < seq))
    conn.execute(
        update(sandboxes).where(sandboxes.c.id == sandbox_id, older).values(missed_seq=seq)
    )


def change(conn: Connection, sandbox_id: str, values: Mapping[str, Any]) -> None:
    """Set columns of one sandbox."""
    conn.execute(update(sandboxes).where(sandboxes.c.id == sandbox_id).values(**values))


def rename(conn: Connection, sandbox_id: str, name: str) -> None:
    """Give a living sandbox another name.

    Raises:
        NameTaken: another living sandbox of the org bears it.
    """
    try:
        change(conn, sandbox_id, {"name": name})
    except IntegrityError as exc:
        raise name_taken(name) from exc


def name_taken(name: str | None) -> NameTaken:
    """What is said to who wants a name that a living sandbox bears."""
    return NameTaken(
        f"a living sandbox is named {name!r} already",
        hint="choose another name, or destroy that one first",
        details={"name": name},
    )


def retag(conn: Connection, sandbox_id: str, tags: Mapping[str, str]) -> None:
    """Give a sandbox these tags in place of those it has."""
    change(conn, sandbox_id, {"tags": dict(tags)})
    conn.execute(delete(sandbox_tags).where(sandbox_tags.c.sandbox_id == sandbox_id))
    _add_tags(conn, sandbox_id, tags)


def _add_tags(conn: Connection, sandbox_id: str, tags: Mapping[str, str]) -> None:
    if tags:
        rows = [{"sandbox_id": sandbox_id, "key": k, "value": v} for k, v in tags.items()]
        conn.execute(insert(sandbox_tags), rows)


def users_of(conn: Connection, template_id: str, recoverable_since: datetime) -> dict[str, int]:
    """How many sandboxes of each org stand on a template version: alive, or ended so lately that they

    may be recovered.
    """
    query = (
        select(sandboxes.c.org_id, func.count())
        .where(
            sandboxes.c.template_id == template_id,
            or_(
                _ALIVE,
                and_(sandboxes.c.stopped_at >= recoverable_since, guests.is_kept()),
            ),
        )
        .group_by(sandboxes.c.org_id)
    )
    return {org_id: int(count) for org_id, count in conn.execute(query)}
