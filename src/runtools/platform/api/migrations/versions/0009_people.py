"""Users, members and sessions; the operator's rights, which no ``*`` includes; tickets of any caller; audit
lines of who acted in no org.

The keys that the platform itself made for whoever started it become the operator's. Other keys keep what
they could do in their org; those that named the noun ``host`` keep that under its new name, ``platform``.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_FIRST = ("first key", "another first key")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("password", sa.String(length=255), nullable=True),
        sa.Column("is_operator", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_table(
        "members",
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("joined_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_members_org_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_members_user_id")),
        sa.PrimaryKeyConstraint("org_id", "user_id", name=op.f("pk_members")),
    )
    op.create_index(op.f("ix_members_user_id"), "members", ["user_id"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("place", sa.String(length=8), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sessions_user_id")),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_sessions_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("digest", name=op.f("uq_sessions_digest")),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"])
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"])
    _tickets()
    op.add_column("api_keys", sa.Column("created_by", sa.String(length=24), nullable=True))
    with op.batch_alter_table("audit") as audit:
        audit.alter_column("org_id", existing_type=sa.String(length=24), nullable=True)
    _operators()


def _tickets() -> None:
    """They last 30 seconds: none is carried over."""
    op.drop_table("terminal_tickets")
    op.create_table(
        "terminal_tickets",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("caller_id", sa.String(length=24), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_terminal_tickets")),
    )
    op.create_index(op.f("ix_terminal_tickets_expires_at"), "terminal_tickets", ["expires_at"])


def _operators() -> None:
    keys = sa.table(
        "api_keys",
        sa.column("id", sa.String),
        sa.column("name", sa.String),
        sa.column("scopes", sa.JSON),
    )
    conn = op.get_bind()
    for row in conn.execute(sa.select(keys)).all():
        scopes = [scope.replace("host:", "platform:", 1) for scope in row.scopes]
        if not scopes and row.name in _FIRST:
            scopes = ["*", "platform:*"]
        if scopes != row.scopes:
            conn.execute(sa.update(keys).where(keys.c.id == row.id).values(scopes=scopes))
