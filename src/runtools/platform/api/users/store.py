"""Users in the database. An e-mail address is kept in one form only, see `rules.email`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Boolean, Column, Connection, String, Table, insert, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from runtools.platform.kit.db import Moment, metadata

users = Table(
    "users",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("password", String(255)),
    Column("is_operator", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
)


@dataclass(frozen=True, slots=True)
class User:
    """A person's record.

    Attributes:
        password: its argon2 hash; None where only the identity provider lets the person in.
        is_operator: may act on the whole machine.
    """

    id: str
    email: str
    name: str
    password: str | None
    is_operator: bool
    created_at: datetime

    def __repr__(self) -> str:
        return f"User({self.id})"


def add(conn: Connection, user: User) -> None:
    """A new user."""
    conn.execute(insert(users).values(**asdict(user)))


def add_once(conn: Connection, user: User) -> bool:
    """A new user, unless there is one of that address; whether there was none."""
    make = pg_insert if conn.dialect.name == "postgresql" else sqlite_insert
    fresh = make(users).values(**asdict(user)).on_conflict_do_nothing(index_elements=["email"])
    return conn.scalar(fresh.returning(users.c.id)) is not None


def make_operator(conn: Connection, user_id: str) -> None:
    """Let the user act on the whole machine, too."""
    conn.execute(update(users).where(users.c.id == user_id).values(is_operator=True))


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
    mine = (users.c.id == user_id) & (users.c.password == kept)
    return bool(conn.execute(update(users).where(mine).values(password=password)).rowcount)
