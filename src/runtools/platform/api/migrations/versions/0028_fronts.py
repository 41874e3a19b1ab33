"""What a run's front end brought along, and what a run waits for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Add both."""
    op.add_column("runs", sa.Column("brought", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("runs", sa.Column("awaits", sa.String(16), nullable=True))
