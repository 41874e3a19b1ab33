"""The tables of sandboxes and their tags, and a sandbox's row as a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    false,
    text,
)

from runtools.platform.kit.db import Document, Moment, metadata

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("project_id", String(24), ForeignKey("projects.id"), nullable=False),
    Column("host_id", String(64), nullable=False),
    Column("name", String(63)),
    Column("template_id", String(24), ForeignKey("template_versions.id"), nullable=False),
    Column("template", String(63), nullable=False),
    Column("template_version", Integer, nullable=False),
    Column("parent_id", String(24)),
    Column("tags", Document, nullable=False),
    Column("env_names", Document, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("internet", Boolean, nullable=False),
    # The rules of its egress policy. `egress_open` until the host has them in force.
    Column("egress", Document, nullable=False, server_default='{"allow": ["*"], "deny": []}'),
    Column("egress_generation", Integer, nullable=False, server_default="0"),
    Column("egress_open", Boolean, nullable=False, server_default=false()),
    Column("idle_timeout_seconds", Integer, nullable=False),
    Column("max_lifetime_seconds", Integer),
    Column("require_isolation", String(16)),
    Column("may_queue", Boolean, nullable=False),
    # How it was born: `create`, `fork` (of parent_id), `recover` (from the disk of parent_id), `adopt`
    # (a stray was given a record).
    Column("born", String(8), nullable=False),
    Column("born_op", String(64), nullable=False),
    Column("born_n", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    # The wish. `wish_open` until the host has taken it up or refused it.
    Column("wanted", String(8), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("wish_op", String(64), nullable=False),
    Column("wish_actor", String(64), nullable=False),
    Column("wish_open", Boolean, nullable=False),
    Column("wished_at", Moment, nullable=False),
    # The latest observation.
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("state", String(8), nullable=False),
    Column("operation", String(16)),
    Column("isolation", String(8)),
    Column("started_from", String(8)),
    Column("timings", Document),
    Column("queue", Document),
    Column("durable", Boolean, nullable=False),
    Column("ending", Document),
    Column("started_at", Moment),
    Column("paused_at", Moment),
    Column("stopped_at", Moment),
    # The number of the latest report that was passed over, until a newer one is taken in.
    Column("missed_seq", BigInteger),
    Index(
        "ix_sandboxes_egress_open",
        "egress_generation",
        sqlite_where=text("egress_open"),
        postgresql_where=text("egress_open"),
    ),
    Index("ix_sandboxes_born", "org_id", "born_op", "born_n", unique=True),
    Index("ix_sandboxes_newest", "org_id", "created_at", "id"),
    Index("ix_sandboxes_name", "org_id", "name"),
    Index(None, "org_id", "project_id"),
    Index(
        "ix_sandboxes_living",
        "org_id",
        sqlite_where=text("state <> 'stopped'"),
        postgresql_where=text("state <> 'stopped'"),
    ),
    Index(
        "ix_sandboxes_living_name",
        "org_id",
        "name",
        unique=True,
        sqlite_where=text("state <> 'stopped' AND name IS NOT NULL"),
        postgresql_where=text("state <> 'stopped' AND name IS NOT NULL"),
    ),
    Index(
        "ix_sandboxes_wish_open",
        "wished_at",
        sqlite_where=text("wish_open"),
        postgresql_where=text("wish_open"),
    ),
)

sandbox_tags = Table(
    "sandbox_tags",
    metadata,
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id"), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("value", String(256), nullable=False),
    Index(None, "key", "value"),
)


@dataclass(frozen=True, slots=True)
class Record:
    """A sandbox's row. What it is told inside is kept apart (`guests`)."""

    id: str
    org_id: str
    project_id: str
    host_id: str
    name: str | None
    template_id: str
    template: str
    template_version: int
    parent_id: str | None
    tags: dict[str, str]
    env_names: list[str]
    vcpus: int
    memory_mb: int
    disk_mb: int
    internet: bool
    egress: dict[str, list[str]]
    idle_timeout_seconds: int
    max_lifetime_seconds: int | None
    require_isolation: str | None
    may_queue: bool
    born: str
    born_op: str
    born_n: int
    created_at: datetime
    wanted: str
    generation: int
    wish_op: str
    wish_actor: str
    wish_open: bool
    wished_at: datetime
    epoch: int = -1
    seq: int = -1
    state: str = "creating"
    operation: str | None = "starting"
    isolation: str | None = None
    started_from: str | None = None
    timings: dict[str, Any] | None = None
    queue: dict[str, Any] | None = None
    durable: bool = True
    ending: dict[str, Any] | None = None
    started_at: datetime | None = None
    paused_at: datetime | None = None
    stopped_at: datetime | None = None
    egress_generation: int = 0
    egress_open: bool = False
    missed_seq: int | None = None
