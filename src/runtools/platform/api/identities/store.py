"""Identities in the database, and sign-ins under way at the provider."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    delete,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from runtools.platform.kit.db import Moment, metadata

identities = Table(
    "identities",
    metadata,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("user_id", String(24), ForeignKey("users.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "user_id"),
)
flows = Table(
    "signin_flows",
    metadata,
    Column("state_digest", String(64), primary_key=True),
    Column("browser_digest", String(64), nullable=False),
    Column("next", String(32), nullable=False),
    Column("user_id", String(24), ForeignKey("users.id")),
    Column("expires_at", Moment, nullable=False),
    Index(None, "expires_at"),
)


@dataclass(frozen=True, slots=True)
class Flow:
    """A browser on its way to the provider and back.

    Attributes:
        browser_digest: of the secret in its cookie: nobody else comes back in its place.
        user_id: who is signed in and links an identity; None: somebody who signs in.
    """

    state_digest: str
    browser_digest: str
    next: str
    user_id: str | None
    expires_at: datetime


def begin(conn: Connection, flow: Flow, now: datetime) -> None:
    """Keep a new one; those whose time is over go."""
    conn.execute(delete(flows).where(flows.c.expires_at <= now))
    conn.execute(insert(flows).values(**asdict(flow)))


def take(conn: Connection, state_digest: str) -> Flow | None:
    """The flow of that state, which is none any more after this."""
    gone = delete(flows).where(flows.c.state_digest == state_digest).returning(flows)
    row = conn.execute(gone).mappings().first()
    return None if row is None else Flow(**row)


def user_of(conn: Connection, issuer: str, subject: str) -> str | None:
    """The id of the user whom that identity is linked to."""
    mine = (identities.c.issuer == issuer) & (identities.c.subject == subject)
    found: str | None = conn.scalar(select(identities.c.user_id).where(mine))
    return found


def link(conn: Connection, issuer: str, subject: str, user_id: str, now: datetime) -> bool:
    """Link an identity to a user, unless it is to another one; whether it is to this one now."""
    make = pg_insert if conn.dialect.name == "postgresql" else sqlite_insert
    row = {"issuer": issuer, "subject": subject, "user_id": user_id, "created_at": now}
    conn.execute(make(identities).values(**row).on_conflict_do_nothing())
    return user_of(conn, issuer, subject) == user_id
