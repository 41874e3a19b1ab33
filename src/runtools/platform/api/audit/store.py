"""The audit log in the database. Lines are added, get their answer once, and are dropped when old."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
    Executable,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    delete,
    insert,
    or_,
    select,
)

from runtools.platform.kit.db import UPSERTS, Moment, Upsert, metadata

audit = Table(
    "audit",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id")),
    Column("at", Moment, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("resource", String(200)),
    Column("status", Integer),
    Column("error", String(64)),
    Column("request_id", String(64), nullable=False),
    Column("source", String(64), nullable=False),
    Index(None, "org_id", "at", "id"),
    Index(None, "at"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """Who did what to which resource from where, and how it was answered (None: it was not, so far).

    ``org_id`` is None where the caller acted in no org: a sign-in that failed, for one.
    """

    id: str
    org_id: str | None
    at: datetime
    actor: str
    action: str
    resource: str | None
    status: int | None
    error: str | None
    request_id: str
    source: str


@dataclass(frozen=True, slots=True)
class Sought:
    """Which lines are wanted; None: whatever they say."""

    action: str | None = None
    resource: str | None = None
    actor: str | None = None


_ANSWER = ("org_id", "actor", "resource", "status", "error")  # what may be known with it alone


def _finish(whole: Upsert) -> Executable:
    answer = {name: whole.excluded[name] for name in _ANSWER}
    open_ = audit.c.status.is_(None)
    return whole.on_conflict_do_update(index_elements=["id"], set_=answer, where=open_)


# Made once: to build a statement takes as long as to have it answered.
_ADD = insert(audit)
_BEGIN = {name: begun(audit).on_conflict_do_nothing() for name, begun in UPSERTS.items()}
_FINISH = {name: _finish(begun(audit)) for name, begun in UPSERTS.items()}
_COLUMNS = [audit.c[field.name] for field in fields(Line)]


def add(conn: Connection, lines: Sequence[Line]) -> None:
    """Write lines down."""
    conn.execute(_ADD, [asdict(line) for line in lines])


def begin(conn: Connection, line: Line) -> None:
    """Write a line down that is yet to be answered, unless it is there."""
    conn.execute(_BEGIN[conn.dialect.name], asdict(line))


def finish(conn: Connection, line: Line) -> None:
    """A line with its answer, whether it was begun or not. One that has an answer keeps it."""
    conn.execute(_FINISH[conn.dialect.name], asdict(line))


def page(
    conn: Connection,
    org_id: str | None,
    sought: Sought,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Line]:
    """The org's lines, or those of no org, the newest first."""
    query = select(*_COLUMNS).where(audit.c.org_id == org_id)
    for name, value in asdict(sought).items():
        if value is not None:
            query = query.where(audit.c[name] == value)
    if after is not None:
        at, line_id = after
        beside = (audit.c.at == at) & (audit.c.id < line_id)
        query = query.where(or_(audit.c.at < at, beside))
    query = query.order_by(audit.c.at.desc(), audit.c.id.desc()).limit(limit)
    return [Line(*row) for row in conn.execute(query)]


def drop(conn: Connection, before: datetime) -> None:
    """Drop what is older."""
    conn.execute(delete(audit).where(audit.c.at < before))
