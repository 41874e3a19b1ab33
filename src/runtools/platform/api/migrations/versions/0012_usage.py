"""What usage is added up from; what the ledger knows of earlier lives is taken over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_OPEN = sa.text("until IS NULL")
# The api's own lines bear the epoch -1: ends that it found by itself come after all of a host's.
_TAKEN_OVER = """
    INSERT INTO usage_moves (sandbox_id, epoch, seq, at, state)
    SELECT sandbox_id, CASE WHEN epoch < 0 THEN 4611686018427387904 ELSE epoch END, seq, at, state
    FROM ledger
    WHERE state <> 'creating' AND sandbox_id IN (SELECT id FROM sandboxes)
"""


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "usage_moves",
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name=op.f("fk_usage_moves_sandbox_id")
        ),
        sa.PrimaryKeyConstraint("sandbox_id", "epoch", "seq", name=op.f("pk_usage_moves")),
    )
    op.create_table(
        "usage_stored",
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("mb", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name=op.f("fk_usage_stored_sandbox_id")
        ),
        sa.PrimaryKeyConstraint("sandbox_id", "since", name=op.f("pk_usage_stored")),
    )
    op.create_index(
        "ix_usage_stored_open",
        "usage_stored",
        ["sandbox_id"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.execute(_TAKEN_OVER)
