"""Which commands a run that has ended may have left running in its sandbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    """Add it."""
    op.add_column("runs", sa.Column("commands_left", sa.JSON(none_as_null=True), nullable=True))
    left = sa.text("commands_left IS NOT NULL")
    op.create_index(
        "ix_runs_commands_left", "runs", ["id"], sqlite_where=left, postgresql_where=left
    )
