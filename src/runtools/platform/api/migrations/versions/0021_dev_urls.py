"""Dev URLs: who may enter, and links."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "dev_url_choices",
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("port", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("access", sa.String(length=8), nullable=False),
        sa.Column("chosen_by", sa.String(length=64), nullable=False),
        sa.Column("chosen_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_dev_url_choices_org_id")),
        sa.PrimaryKeyConstraint("org_id", "sandbox_id", "port", name=op.f("pk_dev_url_choices")),
    )
    op.create_table(
        "dev_url_links",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("maker", sa.String(length=64), nullable=False),
        sa.Column("maker_kind", sa.String(length=8), nullable=False),
        sa.Column("maker_digest", sa.String(length=64), nullable=False),
        sa.Column("op", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_dev_url_links_org_id")),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name=op.f("fk_dev_url_links_sandbox_id")
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_dev_url_links")),
        sa.UniqueConstraint("org_id", "op", name=op.f("uq_dev_url_links_org_id_op")),
    )
    op.create_index(
        op.f("ix_dev_url_links_org_id_sandbox_id_port"),
        "dev_url_links",
        ["org_id", "sandbox_id", "port"],
    )
    op.create_index(op.f("ix_dev_url_links_expires_at"), "dev_url_links", ["expires_at"])
