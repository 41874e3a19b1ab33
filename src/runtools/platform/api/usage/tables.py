"""The tables that usage is added up from."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, text

from runtools.platform.kit.db import Moment, metadata

moves = Table(
    "usage_moves",
    metadata,
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id"), primary_key=True),
    # The host's number of the report. An end that the api found by itself comes after all of them.
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("state", String(8), nullable=False),
)

stored = Table(
    "usage_stored",
    metadata,
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id"), primary_key=True),
    Column("since", Moment, primary_key=True),
    Column("until", Moment),  # none: it is what was last seen
    Column("mb", Integer, nullable=False),
    Index(
        "ix_usage_stored_open",
        "sandbox_id",
        unique=True,
        sqlite_where=text("until IS NULL"),
        postgresql_where=text("until IS NULL"),
    ),
)

days = Table(
    "usage_days",
    metadata,
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id"), primary_key=True),
    Column("since", Moment, primary_key=True),
    Column("running_ms", BigInteger, nullable=False),
    Column("stored_mb_ms", BigInteger, nullable=False),
)
