"""Secrets in the database, sealed. A record is found by (org, name) and nothing else."""

from __future__ import annotations

from collections.abc import Collection
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
    bindparam,
    delete,
    select,
    update,
)

from runtools.platform.api.vault.store import SealedColumn
from runtools.platform.api.vault.vault import Sealed
from runtools.platform.kit.db import Moment, metadata, upsert

secrets = Table(
    "secrets",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("category", String(16), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("description", String(1000)),
    Column("version", Integer, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("sealed", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("op", String(64)),  # the act that gave it its value
    UniqueConstraint("org_id", "name"),
)

LABEL = "secret"
SEALED = SealedColumn(secrets, key=("id",), place=("org_id", "name"), label=LABEL)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's record without its value. ``version`` counts its values."""

    id: str
    org_id: str
    name: str
    category: str
    scope: str
    description: str | None
    version: int
    created_at: datetime
    updated_at: datetime
    op: str | None = None


_COLUMNS = [secrets.c[field.name] for field in fields(Secret)]
# Made once: to build a statement takes as long as to have it answered.
_VALUE = select(*_COLUMNS, secrets.c.key_id, secrets.c.sealed).where(
    secrets.c.org_id == bindparam("org"), secrets.c.name == bindparam("called")
)


def find(conn: Connection, org_id: str, name: str) -> Secret | None:
    """The org's secret of that name; in a write it stays as it is until the end."""
    query = select(*_COLUMNS).where(secrets.c.org_id == org_id, secrets.c.name == name)
    row = conn.execute(query.with_for_update()).first()
    return None if row is None else Secret(*row)


def add(conn: Connection, secret: Secret, value: Sealed) -> bool:
    """A new secret; False: there is one of that name by now."""
    row = upsert(conn, secrets).values(**asdict(secret), **asdict(value))
    return conn.execute(row.on_conflict_do_nothing()).rowcount == 1


def change(conn: Connection, secret: Secret, value: Sealed) -> None:
    """Another value, and what else is said of it."""
    conn.execute(
        update(secrets)
        .where(secrets.c.org_id == secret.org_id, secrets.c.name == secret.name)
        .values(**asdict(secret), **asdict(value))
    )


def named(conn: Connection, org_id: str, names: Collection[str]) -> list[Secret]:
    """Those of the org's secrets that have one of the names."""
    query = select(*_COLUMNS).where(secrets.c.org_id == org_id, secrets.c.name.in_(names))
    return [Secret(*row) for row in conn.execute(query)]


def page(
    conn: Connection, org_id: str, category: str | None, after: str, limit: int
) -> list[Secret]:
    """The org's secrets by name, from after a name on."""
    query = select(*_COLUMNS).where(secrets.c.org_id == org_id, secrets.c.name > after)
    if category is not None:
        query = query.where(secrets.c.category == category)
    return [Secret(*row) for row in conn.execute(query.order_by(secrets.c.name).limit(limit))]


def value(conn: Connection, org_id: str, name: str) -> tuple[Secret, Sealed] | None:
    """A secret with its sealed value."""
    row = conn.execute(_VALUE, {"org": org_id, "called": name}).first()
    return None if row is None else (Secret(*row[:-2]), Sealed(*row[-2:]))


def remove(conn: Connection, org_id: str, name: str) -> Secret | None:
    """Take a secret away; returns what it was."""
    found = find(conn, org_id, name)
    conn.execute(delete(secrets).where(secrets.c.org_id == org_id, secrets.c.name == name))
    return found
