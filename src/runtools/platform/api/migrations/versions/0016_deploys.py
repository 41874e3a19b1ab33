"""Deploys, and what they leave standing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_RUNNING = sa.text("state = 'running'")
_STANDING = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "deploys",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("op", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("commit_id", sa.String(length=64), nullable=True),
        sa.Column("dirty", sa.Boolean(), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("key_id", sa.String(length=16), nullable=True),
        sa.Column("sealed", sa.Text(), nullable=True),
        sa.Column("lease", sa.String(length=24), nullable=True),
        sa.Column("leased_until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_deploys_org_id")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_deploys_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deploys")),
    )
    op.create_index(op.f("ix_deploys_org_id_op"), "deploys", ["org_id", "op"], unique=True)
    op.create_index(
        op.f("ix_deploys_org_id_created_at_id"), "deploys", ["org_id", "created_at", "id"]
    )
    op.create_index(
        "ix_deploys_running",
        "deploys",
        ["project_id"],
        unique=True,
        sqlite_where=_RUNNING,
        postgresql_where=_RUNNING,
    )
    op.create_table(
        "definitions",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("latest_version", sa.Integer(), nullable=False),
        sa.Column("sandbox_id", sa.String(length=24), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_definitions_org_id")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_definitions_project_id")
        ),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name=op.f("fk_definitions_sandbox_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_definitions")),
    )
    op.create_index(
        "ix_definitions_standing",
        "definitions",
        ["project_id", "kind", "slug"],
        unique=True,
        sqlite_where=_STANDING,
        postgresql_where=_STANDING,
    )
    op.create_index(
        op.f("ix_definitions_org_id_kind_slug"), "definitions", ["org_id", "kind", "slug"]
    )
    op.create_table(
        "definition_versions",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("definition_id", sa.String(length=24), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("says", sa.JSON(), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=True),
        sa.Column("sealed", sa.Text(), nullable=True),
        sa.Column("deploy_id", sa.String(length=24), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["definition_id"],
            ["definitions.id"],
            name=op.f("fk_definition_versions_definition_id"),
        ),
        sa.ForeignKeyConstraint(
            ["deploy_id"], ["deploys.id"], name=op.f("fk_definition_versions_deploy_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_definition_versions")),
    )
    op.create_index(
        op.f("ix_definition_versions_definition_id_version"),
        "definition_versions",
        ["definition_id", "version"],
        unique=True,
    )
