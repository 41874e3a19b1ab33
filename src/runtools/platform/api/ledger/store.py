"""The ledger in the database: append-only, numbered per org in the order of becoming visible."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    and_,
    exists,
    insert,
    or_,
    select,
)

from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.kit.db import Document, Moment, metadata

ledger = Table(
    "ledger",
    metadata,
    Column("org_id", String(24), ForeignKey("orgs.id"), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("sandbox_id", String(24), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    Column("state", String(8), nullable=False),
    Column("operation", String(16)),
    Column("cause", String(16), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("detail", Document, nullable=False),
    Column("look", Text),  # the sandbox as it then was; none where newer news had come before
    Index(None, "sandbox_id", "epoch", "seq", unique=True),
    Index(None, "org_id", "sandbox_id", "id"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger. ``look`` is the sandbox's JSON of that moment."""

    org_id: str
    id: int
    sandbox_id: str
    epoch: int
    seq: int
    at: datetime
    state: str
    operation: str | None
    cause: str
    actor: str
    detail: dict[str, Any]
    look: str | None


# Lines that the api writes itself bear this epoch; a host's are zero or more.
OWN_EPOCH = -1

_COLUMNS = [ledger.c[field.name] for field in fields(Entry)]


@dataclass(frozen=True, slots=True)
class News:
    """What happened to a sandbox, without the place in the ledger."""

    at: datetime
    state: str
    operation: str | None
    cause: str
    actor: str
    detail: dict[str, Any]
    place: tuple[int, int] | None = None  # the host's (epoch, seq); None: the api says so itself


def append(conn: Connection, record: Record, news: News, look: str | None) -> int:
    """Write the next line of the org's ledger; returns its number."""
    number = orgs.next_ledger_id(conn, record.org_id)
    epoch, seq = news.place or (OWN_EPOCH, number)
    line = Entry(
        org_id=record.org_id,
        id=number,
        sandbox_id=record.id,
        epoch=epoch,
        seq=seq,
        at=news.at,
        state=news.state,
        operation=news.operation,
        cause=news.cause,
        actor=news.actor,
        detail=news.detail,
        look=look,
    )
    conn.execute(insert(ledger).values(**asdict(line)))
    return number


def holds(conn: Connection, sandbox_id: str, place: tuple[int, int]) -> bool:
    """Whether a report of a host has been written down."""
    query = select(
        exists().where(
            ledger.c.sandbox_id == sandbox_id, ledger.c.epoch == place[0], ledger.c.seq == place[1]
        )
    )
    return bool(conn.scalar(query))


def before(
    conn: Connection, sandbox_id: str, place: tuple[int, int]
) -> tuple[str, str | None] | None:
    """State and operation that the host's latest report before a place told."""
    earlier = or_(
        ledger.c.epoch < place[0], and_(ledger.c.epoch == place[0], ledger.c.seq < place[1])
    )
    query = (
        select(ledger.c.state, ledger.c.operation)
        .where(ledger.c.sandbox_id == sandbox_id, ledger.c.epoch > OWN_EPOCH, earlier)
        .order_by(ledger.c.epoch.desc(), ledger.c.seq.desc())
        .limit(1)
    )
    row = conn.execute(query).first()
    return None if row is None else (row.state, row.operation)


def of_sandbox(
    conn: Connection, org_id: str, sandbox_id: str, after: int, limit: int
) -> list[Entry]:
    """A sandbox's lines after a number, the oldest first."""
    query = (
        select(*_COLUMNS)
        .where(ledger.c.org_id == org_id, ledger.c.sandbox_id == sandbox_id, ledger.c.id > after)
        .order_by(ledger.c.id)
        .limit(limit)
    )
    return [Entry(*row) for row in conn.execute(query)]


def events(
    conn: Connection, org_id: str, sandbox_id: str | None, after: int, limit: int
) -> list[Entry]:
    """The org's lines after a number that showed a new look, the oldest first."""
    query = select(*_COLUMNS).where(
        ledger.c.org_id == org_id, ledger.c.id > after, ledger.c.look.is_not(None)
    )
    if sandbox_id is not None:
        query = query.where(ledger.c.sandbox_id == sandbox_id)
    query = query.order_by(ledger.c.id).limit(limit)
    return [Entry(*row) for row in conn.execute(query)]
