"""What runs have left running is kept by itself: it outlives them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"

_SERVERS = """
INSERT INTO leftovers (sandbox_id, name, org_id, run_id, lease)
SELECT runs.sandbox_id, 'mcp.' || runs.id || '.', runs.org_id, runs.id, runs.servers_left
FROM runs JOIN sandboxes ON sandboxes.id = runs.sandbox_id
WHERE runs.servers_left IS NOT NULL
"""


def upgrade() -> None:
    """Add the table, and move what runs have noted."""
    leftovers = op.create_table(
        "leftovers",
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("run_id", sa.String(length=24), nullable=False),
        sa.Column("lease", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_leftovers_org_id"),
        sa.PrimaryKeyConstraint("sandbox_id", "name", name="pk_leftovers"),
    )
    op.create_index("ix_leftovers_run_id", "leftovers", ["run_id"])
    op.execute(_SERVERS)
    conn = op.get_bind()
    commands = sa.column("commands_left", sa.JSON(none_as_null=True))
    runs = sa.table("runs", *map(sa.column, ("id", "org_id", "sandbox_id")), commands)
    sandboxes = sa.table("sandboxes", sa.column("id"))
    noted = sa.select(runs).join(sandboxes, sandboxes.c.id == runs.c.sandbox_id)
    for run in conn.execute(noted.where(commands.is_not(None))).mappings().all():
        row = {"sandbox_id": run["sandbox_id"], "org_id": run["org_id"], "run_id": run["id"]}
        for name in run["commands_left"]:
            conn.execute(sa.insert(leftovers).values(**row, name=name))
    for index in ("ix_runs_servers_left", "ix_runs_commands_left"):
        op.drop_index(index, table_name="runs")
    for column in ("servers_left", "commands_left"):
        op.drop_column("runs", column)
