"""Users in the database. An e-mail address is kept in one form only, see `sdk.shapes.people`.

An account that is closed keeps its row, for the audit log names it; its address is free again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    String,
    Table,
    insert,
    or_,
    select,
    update,
)

from runtools.platform.kit.db import Moment, metadata, upsert

users = Table(
    "users",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("password", String(255)),
    Column("is_operator", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("closed_at", Moment),
)

_CLOSED = "closed.invalid"


@dataclass(frozen=True, slots=True)
class User:
    """A person's record.

    Attributes:
        password: its argon2 hash; None where only the identity provider lets the person in.
        is_operator: may act on the whole machine.
        closed_at: since when nobody is let in by it any more; its address is a made-up one then.
    """

    id: str
    email: str
    name: str
    password: str | None
    is_operator: bool
    created_at: datetime
    closed_at: datetime | None = None

    def __repr__(self) -> str:
        return f"User({self.id})"


def add(conn: Connection, user: User) -> None:
    """A new user."""
    conn.execute(insert(users).values(**asdict(user)))


def add_once(conn: Connection, user: User) -> bool:
    """A new user, unless there is one of that address; whether there was none."""
    fresh = (
        upsert(conn, users).values(**asdict(user)).on_conflict_do_nothing(index_elements=["email"])
    )
    return conn.scalar(fresh.returning(users.c.id)) is not None


def set_operator(conn: Connection, user_id: str, *, operator: bool) -> None:
    """Let the user act on the whole machine, or no more."""
    conn.execute(update(users).where(users.c.id == user_id).values(is_operator=operator))


def page(conn: Connection, after: tuple[datetime, str] | None, limit: int) -> list[User]:
    """Everybody who has, or had, an account, who came first first, from after a place on."""
    query = select(users)
    if after is not None:
        at, user_id = after
        beside = (users.c.created_at == at) & (users.c.id > user_id)
        query = query.where(or_(users.c.created_at > at, beside))
    query = query.order_by(users.c.created_at, users.c.id).limit(limit)
    return [User(**row) for row in conn.execute(query).mappings()]


def locked(conn: Connection, user_id: str) -> User | None:
    """The user of that id, with nobody else changing it, or who the operators are, before the end."""
    # All in one order, so that two who act on each other never wait for each other.
    mine = or_(users.c.id == user_id, users.c.is_operator)
    rows = conn.execute(select(users).where(mine).order_by(users.c.id).with_for_update())
    found = [User(**row) for row in rows.mappings() if row["id"] == user_id]
    return found[0] if found else None


def held(conn: Connection, user_id: str, *, unchanged: bool = False) -> User | None:
    """The user of that id, if the account is open; it is not closed before the transaction's end.

    Nor is its password another one before that, with ``unchanged``.
    """
    mine = (users.c.id == user_id) & users.c.closed_at.is_(None)
    query = select(users).where(mine).with_for_update(read=True, key_share=not unchanged)
    row = conn.execute(query).mappings().first()
    return None if row is None else User(**row)


def has_operator(conn: Connection, but: str) -> bool:
    """Whether somebody else is an operator."""
    mine = users.c.is_operator & (users.c.id != but)
    return conn.scalar(select(users.c.id).where(mine).limit(1)) is not None


def close(conn: Connection, user_id: str, now: datetime) -> None:
    """Nobody is let in by the account any more; what it was called stays."""
    gone = {
        "email": f"{user_id}@{_CLOSED}",
        "password": None,
        "is_operator": False,
        "closed_at": now,
    }
    conn.execute(update(users).where(users.c.id == user_id).values(**gone))


def find(conn: Connection, user_id: str) -> User | None:
    """The user of that id."""
    row = conn.execute(select(users).where(users.c.id == user_id)).mappings().first()
    return None if row is None else User(**row)


def by_email(conn: Connection, email: str) -> User | None:
    """The user of that address."""
    row = conn.execute(select(users).where(users.c.email == email)).mappings().first()
    return None if row is None else User(**row)


def set_password(conn: Connection, user_id: str, kept: str, password: str) -> bool:
    """Another hash in the place of the one that was checked; whether that was still there."""
    return _set_password(conn, user_id, users.c.password == kept, password)


def reset_password(conn: Connection, user_id: str, password: str) -> bool:
    """A hash whatever was there before; False: the account is closed."""
    return _set_password(conn, user_id, users.c.closed_at.is_(None), password)


def _set_password(
    conn: Connection, user_id: str, where: ColumnElement[bool], password: str
) -> bool:
    mine = (users.c.id == user_id) & where
    return bool(conn.execute(update(users).where(mine).values(password=password)).rowcount)
