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
    select,
)

from runtools.platform.kit.db import Moment, metadata, upsert

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


def add(conn: Connection, endpoint: Endpoint) -> bool:
    """A new endpoint; False: there is one of that slug by now."""
    row = upsert(conn, endpoints).values(**asdict(endpoint))
    return conn.execute(row.on_conflict_do_nothing()).rowcount == 1


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
