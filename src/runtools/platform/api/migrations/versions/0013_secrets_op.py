"""Secrets remember the act that set them, so that a repeat of it is no second value."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Of those that are there nobody knows it."""
    op.add_column("secrets", sa.Column("op", sa.String(length=64), nullable=True))
