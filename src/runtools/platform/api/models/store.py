"""Endpoints of orgs in the database. A record is found by (org, slug) and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    insert,
    select,
)

from runtools.errors import Conflict
from runtools.platform.api.orgs import store as orgs
from runtools.platform.kit.db import Moment, metadata

endpoints = Table(
    "model_endpoints",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("slug", String(63), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", String(128)),  # by name: another value of it is in force at once
    Column("context_window", Integer),  # tokens that its models take in; null: nobody has said
    Column("op", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("org_id", "slug"),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint's row."""

    id: str
    org_id: str
    slug: str
    url: str
    secret: str | None
    context_window: int | None
    op: str
    created_at: datetime


_COLUMNS = [endpoints.c[field.name] for field in fields(Endpoint)]


def add(conn: Connection, endpoint: Endpoint, most: int) -> Endpoint:
    """A new endpoint, or the one that the same act has made.

    Raises:
        Conflict: the org has one of that slug, or as many as it may have.
    """
    orgs.lock(conn, endpoint.org_id)  # one at a time looks, counts and adds
    there = {one.slug: one for one in all_of(conn, endpoint.org_id)}
    known = there.get(endpoint.slug)
    if known is not None and known.op == endpoint.op:
        return known
    if known is not None:
        raise Conflict(
            f"there is an endpoint {endpoint.slug} already",
            hint="choose another slug, or delete it first",
            details={"field": "slug"},
        )
    if len(there) >= most:
        raise Conflict(f"an org has at most {most} endpoints", hint="delete one first")
    conn.execute(insert(endpoints).values(**asdict(endpoint)))
    return endpoint


def find(conn: Connection, org_id: str, slug: str) -> Endpoint | None:
    """The org's endpoint of that slug."""
    query = select(*_COLUMNS).where(endpoints.c.org_id == org_id, endpoints.c.slug == slug)
    row = conn.execute(query).first()
    return None if row is None else Endpoint(*row)


def all_of(conn: Connection, org_id: str) -> list[Endpoint]:
    """The org's endpoints by slug."""
    query = select(*_COLUMNS).where(endpoints.c.org_id == org_id).order_by(endpoints.c.slug)
    return [Endpoint(*row) for row in conn.execute(query)]


def remove(conn: Connection, org_id: str, slug: str) -> Endpoint | None:
    """Take an endpoint away; returns what it was."""
    found = find(conn, org_id, slug)
    conn.execute(delete(endpoints).where(endpoints.c.org_id == org_id, endpoints.c.slug == slug))
    return found
