"""Passes for SSH, and what the gateway is known by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "ssh_passes",
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("caller_id", sa.String(length=24), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name=op.f("fk_ssh_passes_sandbox_id")
        ),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_ssh_passes_org_id")),
        sa.PrimaryKeyConstraint("sandbox_id", "fingerprint", name=op.f("pk_ssh_passes")),
    )
    op.create_index(op.f("ix_ssh_passes_expires_at"), "ssh_passes", ["expires_at"])
    op.create_table(
        "ssh_gateway",
        sa.Column("id", sa.String(length=8), nullable=False),
        sa.Column("host_keys", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ssh_gateway")),
    )
