"""What orgs may have at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_LIVING = sa.text("state <> 'stopped'")


def upgrade() -> None:
    """Nothing is said of any org: the platform's defaults hold."""
    op.create_table(
        "org_limits",
        sa.Column("org_id", sa.String(length=24), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=True)
            for name in ("sandboxes", "vcpus", "memory_mb", "disk_mb", "snapshots")
        ),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_org_limits_org_id")),
        sa.PrimaryKeyConstraint("org_id", name=op.f("pk_org_limits")),
    )
    op.create_index(
        "ix_sandboxes_living",
        "sandboxes",
        ["org_id"],
        sqlite_where=_LIVING,
        postgresql_where=_LIVING,
    )
