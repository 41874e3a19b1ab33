"""Accounts that are closed, links for new passwords, identities that can be named, logins fetched again."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def upgrade() -> None:
    """Make room for them; identities that are there get an id each."""
    op.add_column("users", sa.Column("closed_at", sa.BigInteger(), nullable=True))
    op.add_column("logins", sa.Column("salt", sa.String(length=64), nullable=True))
    op.add_column("logins", sa.Column("session_id", sa.String(length=24), nullable=True))
    op.add_column("identities", sa.Column("id", sa.String(length=24), nullable=True))
    op.add_column("identities", sa.Column("label", sa.String(length=254), nullable=True))
    identities = sa.table("identities", sa.column("issuer"), sa.column("subject"), sa.column("id"))
    conn = op.get_bind()
    for row in conn.execute(sa.select(identities.c.issuer, identities.c.subject)).all():
        mine = (identities.c.issuer == row.issuer) & (identities.c.subject == row.subject)
        fresh = "idn_" + "".join(secrets.choice(_ALPHABET) for _ in range(20))
        conn.execute(sa.update(identities).where(mine).values(id=fresh))
    op.create_index(op.f("ix_identities_id"), "identities", ["id"], unique=True)
    op.create_index(op.f("ix_api_keys_created_by"), "api_keys", ["created_by"])
    op.create_table(
        "resets",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=True),
        sa.Column("created_by", sa.String(length=24), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_resets_user_id")),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_resets_org_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_resets")),
        sa.UniqueConstraint("user_id", name=op.f("uq_resets_user_id")),
    )
