"""The tables of runs, their logs and what they spent, and their rows as values."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    Text,
    false,
    text,
)

from runtools.platform.kit.db import Document, Moment, metadata

_OPEN = text("status IN ('queued', 'running', 'waiting')")

runs = Table(
    "runs",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("project_id", String(24), nullable=False),
    Column("thread_id", String(24), ForeignKey("threads.id"), nullable=False),
    Column("agent_id", String(24), ForeignKey("definitions.id"), nullable=False),
    Column("version_id", String(24), ForeignKey("definition_versions.id"), nullable=False),
    Column("agent_slug", String(63), nullable=False),
    Column("agent_version", Integer, nullable=False),
    Column("model", String(256), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("op", String(64), nullable=False),
    Column("continues", String(24)),
    Column("config", Document, nullable=False),
    Column("output_schema", Document),
    Column("metadata", Document, nullable=False),
    # What its front end brought along: tools that it carries out, and what it says of itself.
    Column("brought", Document),
    # The sandbox that was asked for, and the one that it works in.
    Column("wanted_sandbox", String(24)),
    Column("sandbox_id", String(24)),
    # Runs of one lane go one at a time, but for those that wait: the sandbox that they share, or the
    # definition that it stands for.
    Column("lane", String(24)),
    Column("status", String(16), nullable=False),
    # What it waits for, while it does.
    Column("awaits", String(16)),
    # Who may append: counted up whenever nobody drives it any more.
    Column("lease", Integer, nullable=False),
    Column("worker_id", String(64)),
    Column("token_digest", String(64)),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("last_seq", BigInteger, nullable=False),
    Column("iterations", Integer, nullable=False),
    Column("usage", Document, nullable=False),
    # How long it was driven under earlier leases.
    Column("active_ms", BigInteger, nullable=False),
    # How far its log went when a lease ended that may have left something under way; 0: none has.
    Column("driven_to", BigInteger, nullable=False, server_default="0"),
    # How often it was taken over with nothing new in its log since the time before.
    Column("takeovers", Integer, nullable=False, server_default="0"),
    # How far its log went when its thread's sandbox was found gone, and another made.
    Column("replaced_at", BigInteger),
    Column("output", Text),
    Column("structured", Document),
    Column("error", Document),
    Column("exceeded", Text),
    Column("created_at", Moment, nullable=False),
    Column("queued_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("taken_at", Moment),
    Column("ended_at", Moment),
    Index(None, "org_id", "op", unique=True),
    Index(None, "org_id", "created_at", "id"),
    Index(None, "thread_id", "created_at"),
    Index(None, "token_digest", unique=True),
    Index("ix_runs_open", "status", "queued_at", sqlite_where=_OPEN, postgresql_where=_OPEN),
    Index("ix_runs_lane", "lane", sqlite_where=_OPEN, postgresql_where=_OPEN),
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", String(24), ForeignKey("runs.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("key", String(128), nullable=False),
    Column("type", String(24), nullable=False),
    Column("at", Moment, nullable=False),
    # JSON as it travels: written once, read often.
    Column("data", Text, nullable=False),
    # What no reader sees.
    Column("wire", Text),
    Index(None, "run_id", "key", unique=True),
)

# What models cost an org in a calendar month (UTC); it outlives the runs.
run_spending = Table(
    "run_spending",
    metadata,
    Column("org_id", String(24), ForeignKey("orgs.id"), primary_key=True),
    Column("month", String(7), primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("nano_usd", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Record:
    """A run's row, but for what its front end brought along: that is large, and read by who gives it out.

    Attributes:
        has_front: whether it brought anything.
    """

    id: str
    org_id: str
    project_id: str
    thread_id: str
    agent_id: str
    version_id: str
    agent_slug: str
    agent_version: int
    model: str
    actor: str
    op: str
    created_at: datetime
    queued_at: datetime
    continues: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    output_schema: dict[str, Any] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    has_front: bool = False
    wanted_sandbox: str | None = None
    sandbox_id: str | None = None
    lane: str | None = None
    status: str = "queued"
    awaits: str | None = None
    lease: int = 1
    worker_id: str | None = None
    token_digest: str | None = field(default=None, repr=False)
    cancel_requested: bool = False
    last_seq: int = 0
    iterations: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    active_ms: int = 0
    driven_to: int = 0
    takeovers: int = 0
    replaced_at: int | None = None
    output: str | None = None
    structured: Any = None
    error: dict[str, Any] | None = None
    exceeded: str | None = None
    started_at: datetime | None = None
    taken_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A row of a run's log; ``data`` and ``wire`` are JSON."""

    run_id: str
    seq: int
    key: str
    type: str
    at: datetime
    data: str
    wire: str | None = field(default=None, repr=False)
