"""Tickets with which browsers open terminals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make their table."""
    op.create_table(
        "terminal_tickets",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=24), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name=op.f("fk_terminal_tickets_key_id")
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_terminal_tickets")),
    )
    op.create_index(op.f("ix_terminal_tickets_expires_at"), "terminal_tickets", ["expires_at"])
