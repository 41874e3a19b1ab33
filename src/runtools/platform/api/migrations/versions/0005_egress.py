"""What sandboxes may reach: rules beside the switch that was there, and whether the host has them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_OPEN = '{"allow": ["*"], "deny": []}'


def upgrade() -> None:
    """Sandboxes that are there have no rules."""
    columns: tuple[sa.Column[object], ...] = (
        sa.Column("egress", sa.JSON(), nullable=False, server_default=_OPEN),
        sa.Column("egress_generation", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("egress_open", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    for column in columns:
        op.add_column("sandboxes", column)
    op.create_index(
        op.f("ix_sandboxes_egress_open"),
        "sandboxes",
        ["egress_generation"],
        sqlite_where=sa.text("egress_open"),
        postgresql_where=sa.text("egress_open"),
    )
