"""Links that reset a password remember the act that made them: its twin is to ask again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Of those that are there nobody knows it."""
    op.add_column("resets", sa.Column("op", sa.String(length=64), nullable=True))
