"""The audit log in the database. Lines are only ever added, and dropped when they are old enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
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

from runtools.platform.kit.db import Moment, metadata

audit = Table(
    "audit",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id")),
    Column("at", Moment, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("resource", String(200)),
    Column("status", Integer, nullable=False),
    Column("error", String(64)),
    Column("request_id", String(64), nullable=False),
    Column("source", String(64), nullable=False),
    Index(None, "org_id", "at", "id"),
    Index(None, "at"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """Who did what to which resource from where, and how it was answered.

    ``org_id`` is None where the caller acted in no org: a sign-in that failed, for one.
    """

    id: str
    org_id: str | None
    at: datetime
    actor: str
    action: str
    resource: str | None
    status: int
    error: str | None
    request_id: str
    source: str


@dataclass(frozen=True, slots=True)
class Sought:
    """Which lines are wanted; None: whatever they say."""

    action: str | None = None
    resource: str | None = None
    actor: str | None = None


_ADD = insert(audit)
_COLUMNS = [audit.c[field.name] for field in fields(Line)]


def add(conn: Connection, lines: Sequence[Line]) -> None:
    """Write lines down."""
    conn.execute(_ADD, [asdict(line) for line in lines])


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
