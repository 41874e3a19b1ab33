"""Threads, runs, their logs, what they spent, and who drives them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

_OPEN = sa.text("status IN ('queued', 'running', 'waiting')")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "threads",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("agent_id", sa.String(length=24), nullable=False),
        sa.Column("agent_slug", sa.String(length=63), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=True),
        sa.Column("sandbox_id", sa.String(length=24), nullable=True),
        sa.Column("places", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["definitions.id"], name=op.f("fk_threads_agent_id")),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_threads_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threads")),
    )
    op.create_index(
        op.f("ix_threads_org_id_updated_at_id"), "threads", ["org_id", "updated_at", "id"]
    )
    _runs()
    op.create_table(
        "run_events",
        sa.Column("run_id", sa.String(length=24), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("type", sa.String(length=24), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("wire", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_events_run_id")),
        sa.PrimaryKeyConstraint("run_id", "seq", name=op.f("pk_run_events")),
    )
    op.create_index(op.f("ix_run_events_run_id_key"), "run_events", ["run_id", "key"], unique=True)
    op.create_table(
        "run_spending",
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("nano_usd", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_run_spending_org_id")),
        sa.PrimaryKeyConstraint("org_id", "month", name=op.f("pk_run_spending")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index(op.f("ix_workers_seen_at"), "workers", ["seen_at"])
    with op.batch_alter_table("org_limits") as table:
        table.add_column(sa.Column("agent_tokens", sa.Integer(), nullable=True))
        table.add_column(sa.Column("agent_cents", sa.Integer(), nullable=True))


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("thread_id", sa.String(length=24), nullable=False),
        sa.Column("agent_id", sa.String(length=24), nullable=False),
        sa.Column("version_id", sa.String(length=24), nullable=False),
        sa.Column("agent_slug", sa.String(length=63), nullable=False),
        sa.Column("agent_version", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("op", sa.String(length=64), nullable=False),
        sa.Column("continues", sa.String(length=24), nullable=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("output_schema", sa.JSON(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("wanted_sandbox", sa.String(length=24), nullable=True),
        sa.Column("sandbox_id", sa.String(length=24), nullable=True),
        sa.Column("lane", sa.String(length=24), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("lease", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(length=64), nullable=True),
        sa.Column("token_digest", sa.String(length=64), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("iterations", sa.Integer(), nullable=False),
        sa.Column("usage", sa.JSON(), nullable=False),
        sa.Column("active_ms", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("structured", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("exceeded", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("taken_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["agent_id"], ["definitions.id"], name=op.f("fk_runs_agent_id")),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_runs_org_id")),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.id"], name=op.f("fk_runs_thread_id")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["definition_versions.id"], name=op.f("fk_runs_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_org_id_op"), "runs", ["org_id", "op"], unique=True)
    op.create_index(op.f("ix_runs_org_id_created_at_id"), "runs", ["org_id", "created_at", "id"])
    op.create_index(op.f("ix_runs_thread_id_created_at"), "runs", ["thread_id", "created_at"])
    op.create_index(op.f("ix_runs_token_digest"), "runs", ["token_digest"], unique=True)
    for name, columns in (("ix_runs_open", ["status", "queued_at"]), ("ix_runs_lane", ["lane"])):
        op.create_index(name, "runs", columns, sqlite_where=_OPEN, postgresql_where=_OPEN)
