"""Identities in the database, and sign-ins under way at the provider."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
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

from runtools.platform.kit.db import Moment, metadata, upsert

identities = Table(
    "identities",
    metadata,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("user_id", String(24), ForeignKey("users.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("id", String(24)),
    Column("label", String(254)),  # what the provider called it when it was linked
    Index(None, "user_id"),
    Index(None, "id", unique=True),
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
class Identity:
    """An identity that is linked to a user."""

    id: str
    issuer: str
    subject: str
    user_id: str
    label: str | None
    created_at: datetime


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


_COLUMNS = [identities.c[field.name] for field in fields(Identity)]


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


def link(conn: Connection, identity: Identity) -> bool:
    """Link an identity to its user, unless it is to another one; whether it is to that one now."""
    conn.execute(upsert(conn, identities).values(**asdict(identity)).on_conflict_do_nothing())
    return user_of(conn, identity.issuer, identity.subject) == identity.user_id


def all_of(conn: Connection, user_id: str) -> list[Identity]:
    """The identities that are linked to a user, the oldest first."""
    query = select(*_COLUMNS).where(identities.c.user_id == user_id)
    rows = conn.execute(query.order_by(identities.c.created_at, identities.c.id))
    return [Identity(*row) for row in rows]


def unlink(conn: Connection, user_id: str, identity_id: str) -> Identity | None:
    """Unlink one of the user's identities; returns what it was."""
    mine = (identities.c.user_id == user_id) & (identities.c.id == identity_id)
    row = conn.execute(delete(identities).where(mine).returning(*_COLUMNS)).first()
    return None if row is None else Identity(*row)


def unlink_all(conn: Connection, user_id: str) -> None:
    """Unlink all of them, and link none that is under way."""
    conn.execute(delete(flows).where(flows.c.user_id == user_id))
    conn.execute(delete(identities).where(identities.c.user_id == user_id))
