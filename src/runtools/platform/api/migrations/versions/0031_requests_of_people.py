"""What a person who is in no org has asked for is remembered as well."""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Let a remembered request be a person's: that is no org."""
    with op.batch_alter_table("idempotency") as requests:
        requests.drop_constraint("fk_idempotency_org_id", type_="foreignkey")
