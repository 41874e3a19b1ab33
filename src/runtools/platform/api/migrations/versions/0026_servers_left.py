"""Under which lease a run may have left servers of its tools in its sandbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Add it."""
    op.add_column("runs", sa.Column("servers_left", sa.Integer(), nullable=True))
    left = sa.text("servers_left IS NOT NULL")
    op.create_index(
        "ix_runs_servers_left", "runs", ["servers_left"], sqlite_where=left, postgresql_where=left
    )
