"""Members in the database: which user is in which org, in which role."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Select,
    String,
    Table,
    delete,
    insert,
    or_,
    select,
    update,
)

from runtools.platform.api.orgs.store import orgs
from runtools.platform.api.users.store import users
from runtools.platform.core.access import Role
from runtools.platform.kit.db import Moment, metadata

members = Table(
    "members",
    metadata,
    Column("org_id", String(24), ForeignKey("orgs.id"), primary_key=True),
    Column("user_id", String(24), ForeignKey("users.id"), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("joined_at", Moment, nullable=False),
    Index(None, "user_id"),
)


@dataclass(frozen=True, slots=True)
class Member:
    """A person in an org."""

    org_id: str
    user_id: str
    role: Role
    joined_at: datetime
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """An org that a person is in, or (without a role) a key."""

    org_id: str
    name: str
    role: Role | None
    created_at: datetime


_MEMBERS = select(
    members.c.org_id,
    members.c.user_id,
    members.c.role,
    members.c.joined_at,
    users.c.email,
    users.c.name,
).join_from(members, users)


def add(conn: Connection, org_id: str, user_id: str, role: Role, now: datetime) -> None:
    """One more."""
    conn.execute(insert(members).values(org_id=org_id, user_id=user_id, role=role, joined_at=now))


def all_of(conn: Connection, org_id: str) -> list[Member]:
    """The org's members, who came first first."""
    query = _MEMBERS.where(members.c.org_id == org_id)
    return _found(conn, query.order_by(members.c.joined_at, members.c.user_id))


def page(
    conn: Connection, org_id: str, after: tuple[datetime, str] | None, limit: int
) -> list[Member]:
    """The org's members, who came first first, from after a place on."""
    query = _MEMBERS.where(members.c.org_id == org_id)
    if after is not None:
        at, user_id = after
        beside = (members.c.joined_at == at) & (members.c.user_id > user_id)
        query = query.where(or_(members.c.joined_at > at, beside))
    return _found(conn, query.order_by(members.c.joined_at, members.c.user_id).limit(limit))


def find(conn: Connection, org_id: str, user_id: str) -> Member | None:
    """The org's member of that id."""
    mine = (members.c.org_id == org_id) & (members.c.user_id == user_id)
    found = _found(conn, _MEMBERS.where(mine))
    return found[0] if found else None


def held(conn: Connection, org_id: str, user_id: str) -> bool:
    """Whether the user is a member; nobody changes who is one until the transaction's end."""
    query = select(orgs.c.id).where(orgs.c.id == org_id)
    conn.execute(query.with_for_update(read=True))
    return find(conn, org_id, user_id) is not None


def set_role(conn: Connection, org_id: str, user_id: str, role: Role) -> None:
    """Another role."""
    mine = (members.c.org_id == org_id) & (members.c.user_id == user_id)
    conn.execute(update(members).where(mine).values(role=role))


def remove(conn: Connection, org_id: str, user_id: str) -> None:
    """No member any more."""
    mine = (members.c.org_id == org_id) & (members.c.user_id == user_id)
    conn.execute(delete(members).where(mine))


def places(conn: Connection, user_id: str) -> list[Place]:
    """The orgs that a person is in, the longest first."""
    query = (
        select(orgs.c.id, orgs.c.name, members.c.role, orgs.c.created_at)
        .join_from(members, orgs)
        .where(members.c.user_id == user_id)
        .order_by(members.c.joined_at, orgs.c.id)
    )
    return [Place(*row) for row in conn.execute(query)]


def _found(conn: Connection, query: Select[*tuple[Any, ...]]) -> list[Member]:
    return [Member(*row) for row in conn.execute(query)]


def place(conn: Connection, org_id: str) -> Place:
    """The org as a key sees it."""
    query = select(orgs.c.id, orgs.c.name, orgs.c.created_at).where(orgs.c.id == org_id)
    row = conn.execute(query).one()
    return Place(row.id, row.name, None, row.created_at)
