"""Deploys that somebody has cancelled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Nobody has so far."""
    op.add_column("deploys", sa.Column("cancelled_by", sa.String(length=64), nullable=True))
