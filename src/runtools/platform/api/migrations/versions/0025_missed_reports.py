"""Which report of a sandbox was passed over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add it."""
    op.add_column("sandboxes", sa.Column("missed_seq", sa.BigInteger(), nullable=True))
