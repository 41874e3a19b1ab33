"""Master keys in the database (ids and proofs, never themselves), who has which, and sealed columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Row,
    String,
    Table,
    and_,
    delete,
    insert,
    select,
    text,
    update,
)

from runtools.platform.kit.db import Document, Moment, metadata, shared_time, upsert

_CURRENT = text("state = 'current'")

master_keys = Table(
    "master_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    # A known word under the key: shows that a key of this id is the key.
    Column("proof", String(256), nullable=False),
    # current, retiring; coming: nothing is sealed with it until all who are there can open with it
    Column("state", String(8), nullable=False),
    Column("since", Moment, nullable=False),
    # What is sealed is sealed with one key, for all.
    Index(
        "ix_master_keys_current",
        "state",
        unique=True,
        sqlite_where=_CURRENT,
        postgresql_where=_CURRENT,
    ),
)
holders = Table(
    "master_key_holders",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("keys", Document, nullable=False),
    Column("looked_for", String(16)),  # the coming key that it has looked for last
    Column("seen_at", Moment, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Known:
    """A master key that something may be sealed with."""

    id: str
    proof: str
    state: str


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that opens sealed values, and the ids of the keys that it has."""

    id: str
    name: str
    keys: list[str]
    looked_for: str | None = None


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column whose values are sealed.

    Attributes:
        table: where it is; it has the columns ``key_id`` and ``sealed``.
        key: the columns of its primary key.
        place: the columns whose values a sealed one is bound to, in order.
        label: the first word of the place, which tells kinds of values apart.
    """

    table: Table
    key: Sequence[str]
    place: Sequence[str]
    label: str


def known(conn: Connection) -> list[Known]:
    """Every master key that something may be sealed with, the current one first."""
    query = (
        select(master_keys.c.id, master_keys.c.proof, master_keys.c.state)
        .where(master_keys.c.state != "coming")
        .order_by(master_keys.c.state, master_keys.c.since.desc())
    )
    return [Known(*row) for row in conn.execute(query)]


def coming(conn: Connection) -> str | None:
    """The key that is to seal next, if one is."""
    query = select(master_keys.c.id).where(master_keys.c.state == "coming")
    found: str | None = conn.scalar(query)
    return found


def announce(conn: Connection, key_id: str, proof: str, now: datetime) -> None:
    """Say which key is to seal next, unless it is known already; it is looked for anew."""
    give_up(conn)
    conn.execute(update(holders).values(looked_for=None))
    row = upsert(conn, master_keys).values(id=key_id, proof=proof, state="coming", since=now)
    conn.execute(row.on_conflict_do_nothing())


def give_up(conn: Connection) -> None:
    """No other key is to seal next."""
    conn.execute(delete(master_keys).where(master_keys.c.state == "coming"))


def current_id(conn: Connection) -> str | None:
    """The key that seals. It stays the current one until the transaction's end."""
    query = select(master_keys.c.id).where(master_keys.c.state == "current")
    query = query.with_for_update(read=True)
    found: str | None = conn.scalar(query)
    # Who has waited for another key to become the current one is told of the old one that it is not,
    # and finds the new one when it asks again.
    return found or conn.scalar(query)


def make_current(conn: Connection, key_id: str, proof: str, now: datetime) -> None:
    """From now on this key seals; what others sealed is to be sealed anew."""
    mine = master_keys.c.id == key_id
    conn.execute(delete(master_keys).where(master_keys.c.state == "coming", ~mine))
    conn.execute(update(master_keys).values(state="retiring"))
    if conn.execute(update(master_keys).where(mine).values(state="current")).rowcount == 0:
        conn.execute(insert(master_keys).values(id=key_id, proof=proof, state="current", since=now))


def reseal(
    conn: Connection,
    column: SealedColumn,
    key_id: str,
    limit: int,
    anew: Callable[[str, str, Sequence[str]], str],
) -> int:
    """Seal some values of a column anew that another key sealed; returns how many there were.

    Args:
        key_id: the key that everything is to be sealed with.
        limit: how many at most.
        anew: makes the new sealed value of the old key's id, the old sealed value, and the place.
    """
    table = column.table
    others = select(table).where(table.c.key_id != key_id, table.c.sealed.is_not(None)).limit(limit)
    rows: Sequence[Row[Any]] = conn.execute(others.with_for_update()).all()
    for row in rows:
        named = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
        place = [column.label, *(str(named[name]) for name in column.place)]
        fresh = anew(named["key_id"], named["sealed"], place)
        mine = and_(*(table.c[name] == named[name] for name in column.key))
        conn.execute(update(table).where(mine).values(key_id=key_id, sealed=fresh))
    return len(rows)


def retire(conn: Connection, key_id: str, columns: Sequence[SealedColumn]) -> bool:
    """Forget every other key, unless something is sealed with one; returns whether they are gone."""
    for column in columns:
        table = column.table
        left = select(table.c.key_id).where(table.c.key_id != key_id, table.c.sealed.is_not(None))
        if conn.execute(left.limit(1)).first() is not None:
            return False
    conn.execute(delete(master_keys).where(master_keys.c.id != key_id))
    return True


# --- who has which ---


# When is told by the database's clock: those of the machines may differ by more than what is waited for.


def hold(conn: Connection, holder: Holder) -> None:
    """A process is there, with these keys."""
    row = {**asdict(holder), "seen_at": shared_time(conn)}
    there = upsert(conn, holders).values(**row)
    conn.execute(there.on_conflict_do_update(index_elements=["id"], set_=row))


def let_go(conn: Connection, holder_id: str) -> None:
    """A process has ended."""
    conn.execute(delete(holders).where(holders.c.id == holder_id))


def forget_holders(conn: Connection, silent: timedelta) -> None:
    """Drop processes that have said nothing for so long."""
    conn.execute(delete(holders).where(holders.c.seen_at < shared_time(conn) - silent))


def is_silent(conn: Connection, holder_id: str, silent: timedelta) -> bool:
    """Whether a process has said nothing for so long."""
    seen_at = conn.scalar(select(holders.c.seen_at).where(holders.c.id == holder_id))
    return seen_at is None or shared_time(conn) - seen_at >= silent


def holding(conn: Connection, silent: timedelta) -> list[Holder]:
    """The processes that have said something for no longer than that, by name."""
    there = holders.c.seen_at >= shared_time(conn) - silent
    query = select(*(holders.c[field.name] for field in fields(Holder))).where(there)
    return [Holder(*row) for row in conn.execute(query.order_by(holders.c.name, holders.c.id))]
