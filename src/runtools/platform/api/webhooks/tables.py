"""The tables of webhooks and of the outbox, and their rows as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

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
    text,
)

from runtools.platform.api.vault.store import SealedColumn
from runtools.platform.kit.db import Document, Moment, metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("events", Document, nullable=False),
    Column("description", String(200), nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("sealed", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", Text),
    Column("op", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "org_id", "op", unique=True),
)

deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("webhook_id", String(24), ForeignKey("webhooks.id"), nullable=False),
    Column("event_id", String(24), nullable=False),
    Column("type", String(32), nullable=False),
    Column("sandbox_id", String(24)),
    Column("ledger_id", BigInteger),  # its place in the order of the sandbox; none: out of order
    Column("body", Text, nullable=False),
    Column("state", String(9), nullable=False),  # pending, delivered, failed
    Column("attempts", Integer, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("created_at", Moment, nullable=False),
    Column("next_at", Moment),
    Column("lease", String(24)),
    Column("leased_until", Moment),
    Column("finished_at", Moment),
    Index(None, "webhook_id", "created_at", "id"),
    Index(None, "webhook_id", "sandbox_id", "ledger_id"),
    Index(
        "ix_webhook_deliveries_due",
        "next_at",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
)


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook's row."""

    id: str
    org_id: str
    url: str
    events: list[str]
    description: str
    key_id: str
    sealed: str  # its secret
    op: str
    created_at: datetime
    enabled: bool = True
    disabled_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of the outbox."""

    id: str
    webhook_id: str
    event_id: str
    type: str
    body: str
    created_at: datetime
    sandbox_id: str | None = None
    ledger_id: int | None = None
    state: str = "pending"
    attempts: int = 0
    status: int | None = None
    error: str | None = None
    next_at: datetime | None = None
    lease: str | None = None
    leased_until: datetime | None = None
    finished_at: datetime | None = None


LABEL = "webhook"
SEALED = SealedColumn(webhooks, key=("id",), place=("org_id", "id"), label=LABEL)
