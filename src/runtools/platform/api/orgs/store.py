"""Orgs in the database, with the counter that numbers an org's ledger."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Column, Connection, Index, String, Table, insert, select, update

from runtools.platform.kit.db import Moment, metadata, upsert

orgs = Table(
    "orgs",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("ledger_last", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("op", String(64)),  # the act that made it; none: the platform itself
    Index(None, "op", unique=True),
)


def first(conn: Connection) -> str | None:
    """The id of the oldest org."""
    found: str | None = conn.scalar(select(orgs.c.id).order_by(orgs.c.created_at).limit(1))
    return found


def add(conn: Connection, org_id: str, name: str, now: datetime) -> None:
    """A new org, its ledger empty."""
    conn.execute(insert(orgs).values(id=org_id, name=name, ledger_last=0, created_at=now))


def there(conn: Connection, org_id: str) -> bool:
    """Whether there is an org of that id."""
    return conn.scalar(select(orgs.c.id).where(orgs.c.id == org_id)) is not None


def add_once(conn: Connection, org_id: str, name: str, op: str, now: datetime) -> str:
    """A new org, unless the same act has made one before; returns the id of the one that is there."""
    row = {"id": org_id, "name": name, "ledger_last": 0, "created_at": now, "op": op}
    # Another process may be at the same act in this moment: whoever is second waits, and finds its org.
    once = upsert(conn, orgs).values(**row).on_conflict_do_nothing(index_elements=["op"])
    conn.execute(once)
    return str(conn.scalar(select(orgs.c.id).where(orgs.c.op == op)))


def rename(conn: Connection, org_id: str, name: str) -> None:
    """Another name."""
    conn.execute(update(orgs).where(orgs.c.id == org_id).values(name=name))


def name_of(conn: Connection, org_id: str) -> str:
    """The org's name."""
    return str(conn.scalar(select(orgs.c.name).where(orgs.c.id == org_id)))


def next_ledger_id(conn: Connection, org_id: str) -> int:
    """The number of the org's next ledger entry.

    The row stays locked until the transaction ends, so that entries become visible in the order of
    their numbers and a reader that goes on after the last one it saw never misses one.
    """
    counted = (
        update(orgs)
        .where(orgs.c.id == org_id)
        .values(ledger_last=orgs.c.ledger_last + 1)
        .returning(orgs.c.ledger_last)
    )
    return int(conn.execute(counted).scalar_one())


def last_ledger_id(conn: Connection, org_id: str) -> int:
    """The number of the org's latest ledger entry."""
    return int(conn.scalar(select(orgs.c.ledger_last).where(orgs.c.id == org_id)) or 0)


def lock(conn: Connection, org_id: str) -> None:
    """Have those who count or change what the org has wait for each other, until the transaction's end.

    Others may go on to write rows that refer to it: its audit log is among what they end with.
    """
    conn.execute(select(orgs.c.id).where(orgs.c.id == org_id).with_for_update(key_share=True))
