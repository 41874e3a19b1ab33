"""What a lease may have left under way, how often a run was taken over, and whose turn it is where."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

_runs = sa.table(
    "runs",
    sa.column("lane", sa.String),
    sa.column("status", sa.String),
    sa.column("started_at", sa.BigInteger),
    sa.column("last_seq", sa.BigInteger),
    sa.column("driven_to", sa.BigInteger),
)
_definitions = sa.table(
    "definitions", sa.column("id", sa.String), sa.column("sandbox_id", sa.String)
)


def upgrade() -> None:
    """Make them."""
    for column in (
        sa.Column("driven_to", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("takeovers", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("replaced_at", sa.BigInteger(), nullable=True),
    ):
        op.add_column("runs", column)
    # Of what was offered anew before, nobody has noted how far it had been driven: all may have begun.
    anew = (_runs.c.status == "queued") & _runs.c.started_at.is_not(None)
    op.execute(sa.update(_runs).where(anew).values(driven_to=_runs.c.last_seq))
    op.add_column("model_endpoints", sa.Column("context_window", sa.Integer(), nullable=True))
    mine = sa.select(_definitions.c.id).where(_definitions.c.sandbox_id == _runs.c.lane)
    stands = sa.select(_definitions.c.sandbox_id).where(_definitions.c.sandbox_id.is_not(None))
    op.execute(
        sa.update(_runs)
        .where(_runs.c.lane.in_(stands))
        .values(lane=mine.limit(1).scalar_subquery())
    )
