"""Invitations in the database: digests of their codes, never those themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from runtools.platform.api.idempotency.rules import under_way
from runtools.platform.core.access import Role
from runtools.platform.kit.db import Moment, metadata

invitations = Table(
    "invitations",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("email", String(254), nullable=False),
    Column("role", String(16), nullable=False),
    Column("is_operator", Boolean, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("op", String(64), nullable=False),
    Column("created_by", String(24), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("accepted_at", Moment),
    Column("revoked_at", Moment),
    Index(None, "org_id", "op", unique=True),
)

_OPEN = invitations.c.accepted_at.is_(None) & invitations.c.revoked_at.is_(None)


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation's record. ``digest`` is all that is kept of its code."""

    id: str
    org_id: str
    email: str
    role: Role
    is_operator: bool
    digest: str
    op: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None = None
    revoked_at: datetime | None = None


def add(conn: Connection, invitation: Invitation) -> Invitation:
    """A new one.

    Raises:
        Unavailable: the same act is making it at this moment.
    """
    try:
        conn.execute(insert(invitations).values(**asdict(invitation)))
    except IntegrityError as exc:
        raise under_way() from exc
    return invitation


def by_op(conn: Connection, org_id: str, op: str) -> Invitation | None:
    """The invitation that an act has made."""
    mine = (invitations.c.org_id == org_id) & (invitations.c.op == op)
    row = conn.execute(select(invitations).where(mine)).mappings().first()
    return None if row is None else Invitation(**row)


def page(
    conn: Connection, org_id: str, before: tuple[datetime, str] | None, limit: int
) -> list[Invitation]:
    """The org's invitations, whatever became of them, the latest first, from before a place on."""
    query = select(invitations).where(invitations.c.org_id == org_id)
    if before is not None:
        at, invitation_id = before
        beside = (invitations.c.created_at == at) & (invitations.c.id < invitation_id)
        query = query.where(or_(invitations.c.created_at < at, beside))
    query = query.order_by(invitations.c.created_at.desc(), invitations.c.id.desc()).limit(limit)
    return [Invitation(**row) for row in conn.execute(query).mappings()]


def find(conn: Connection, org_id: str, invitation_id: str) -> Invitation | None:
    """The org's invitation of that id."""
    mine = (invitations.c.org_id == org_id) & (invitations.c.id == invitation_id)
    row = conn.execute(select(invitations).where(mine)).mappings().first()
    return None if row is None else Invitation(**row)


def open_one(conn: Connection, digest: str, now: datetime) -> Invitation | None:
    """The invitation of that digest, if it can still be accepted."""
    mine = (invitations.c.digest == digest) & _OPEN & (invitations.c.expires_at > now)
    row = conn.execute(select(invitations).where(mine)).mappings().first()
    return None if row is None else Invitation(**row)


def take(conn: Connection, digest: str, now: datetime) -> Invitation | None:
    """The same, which cannot be accepted any more after this."""
    mine = (invitations.c.digest == digest) & _OPEN & (invitations.c.expires_at > now)
    taken = update(invitations).where(mine).values(accepted_at=now).returning(invitations)
    row = conn.execute(taken).mappings().first()
    return None if row is None else Invitation(**row)


def accepted(conn: Connection, digest: str) -> Invitation | None:
    """The invitation of that digest, if it was accepted."""
    mine = (invitations.c.digest == digest) & invitations.c.accepted_at.is_not(None)
    row = conn.execute(select(invitations).where(mine)).mappings().first()
    return None if row is None else Invitation(**row)


def drop(conn: Connection, before: datetime) -> None:
    """Drop those that ran out before, whatever became of them."""
    conn.execute(delete(invitations).where(invitations.c.expires_at < before))


def revoke(conn: Connection, org_id: str, invitation_id: str, now: datetime) -> Invitation | None:
    """Nobody accepts it any more; returns it as it is then."""
    mine = (invitations.c.org_id == org_id) & (invitations.c.id == invitation_id)
    conn.execute(update(invitations).where(mine, _OPEN).values(revoked_at=now))
    return find(conn, org_id, invitation_id)
