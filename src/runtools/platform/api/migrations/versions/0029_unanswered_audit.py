"""A line of the audit log is written with what it tells of, before its answer is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Let a line have no status."""
    with op.batch_alter_table("audit") as audit:
        audit.alter_column("status", existing_type=sa.Integer(), nullable=True)
