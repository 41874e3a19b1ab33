"""Which api processes there are, and which master keys each has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "master_key_holders",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("keys", sa.JSON(), nullable=False),
        sa.Column("looked_for", sa.String(16), nullable=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
    )
