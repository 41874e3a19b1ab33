"""The table of threads, and its rows as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table

from runtools.platform.kit.db import Moment, metadata

threads = Table(
    "threads",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("project_id", String(24), nullable=False),
    Column("agent_id", String(24), ForeignKey("definitions.id"), nullable=False),
    Column("agent_slug", String(63), nullable=False),
    Column("title", String(200)),
    # The sandbox that was made for it, and how many were before.
    Column("sandbox_id", String(24)),
    Column("places", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Index(None, "org_id", "updated_at", "id"),
)


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread's row."""

    id: str
    org_id: str
    project_id: str
    agent_id: str
    agent_slug: str
    title: str | None
    created_at: datetime
    updated_at: datetime
    sandbox_id: str | None = None
    places: int = 0
