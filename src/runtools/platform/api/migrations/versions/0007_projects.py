"""Projects have a colour and the act that made them; every API key lies in one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Keys that lay in none come into their org's default one."""
    op.add_column("projects", sa.Column("color", sa.String(length=7), nullable=True))
    op.add_column("projects", sa.Column("op", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_projects_org_id_op"), "projects", ["org_id", "op"], unique=True)
    op.execute(
        "UPDATE api_keys SET project_id = (SELECT id FROM projects"
        " WHERE projects.org_id = api_keys.org_id AND projects.is_default)"
        " WHERE project_id IS NULL"
    )
    op.create_index(op.f("ix_sandboxes_org_id_project_id"), "sandboxes", ["org_id", "project_id"])
