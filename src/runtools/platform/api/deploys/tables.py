"""The table of deploys, and a deploy's row as a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from runtools.platform.api.vault.store import SealedColumn
from runtools.platform.kit.db import Document, Moment, metadata

_RUNNING = text("state = 'running'")

deploys = Table(
    "deploys",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("project_id", String(24), ForeignKey("projects.id"), nullable=False),
    Column("op", String(64), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("commit_id", String(64)),
    Column("dirty", Boolean),
    Column("state", String(8), nullable=False),  # running, done, failed
    Column("changes", Document, nullable=False),
    # How many changes are carried out, and what the next one failed at.
    Column("done", Integer, nullable=False),
    Column("error", Document),
    # What is needed to carry the changes out, sealed; erased at the end.
    Column("key_id", String(16)),
    Column("sealed", Text),
    # Which process is at it, and until when nobody else may be.
    Column("lease", String(24)),
    Column("leased_until", Moment),
    Column("created_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("cancelled_by", String(64)),  # who wants it to end; whoever is at it looks
    Index(None, "org_id", "op", unique=True),
    Index(None, "org_id", "created_at", "id"),
    # One at a time in a project.
    Index(
        "ix_deploys_running",
        "project_id",
        unique=True,
        sqlite_where=_RUNNING,
        postgresql_where=_RUNNING,
    ),
)

LABEL = "deploy"
SEALED = SealedColumn(deploys, key=("id",), place=("id",), label=LABEL)


@dataclass(frozen=True, slots=True)
class Row:
    """A deploy, without what it is carried out with."""

    id: str
    org_id: str
    project_id: str
    project: str
    actor: str
    commit_id: str | None
    dirty: bool | None
    state: str
    changes: list[dict[str, Any]]
    done: int
    error: dict[str, Any] | None
    created_at: datetime
    ended_at: datetime | None
    cancelled_by: str | None
