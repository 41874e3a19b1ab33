"""What sandboxes used on days that are long gone, added up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Make room for it; what is old enough is added up by and by."""
    op.create_table(
        "usage_days",
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("running_ms", sa.BigInteger(), nullable=False),
        sa.Column("stored_mb_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name=op.f("fk_usage_days_sandbox_id")
        ),
        sa.PrimaryKeyConstraint("sandbox_id", "since", name=op.f("pk_usage_days")),
    )
