"""Projects in the database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    String,
    Table,
    UniqueConstraint,
    insert,
    select,
)

from runtools.platform.kit.db import Moment, metadata

projects = Table(
    "projects",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("org_id", "name"),
)


def add(
    conn: Connection, project_id: str, org_id: str, name: str, *, default: bool, now: datetime
) -> None:
    """A new project."""
    conn.execute(
        insert(projects).values(
            id=project_id, org_id=org_id, name=name, is_default=default, created_at=now
        )
    )


def find(conn: Connection, org_id: str, project_id: str | None) -> str | None:
    """The project's id where the org has it; without an id, the org's default."""
    wanted = projects.c.is_default if project_id is None else projects.c.id == project_id
    found: str | None = conn.scalar(
        select(projects.c.id).where(projects.c.org_id == org_id, wanted).limit(1)
    )
    return found
