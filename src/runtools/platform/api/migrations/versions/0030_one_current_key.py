"""One master key seals at a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"

_CURRENT = sa.text("state = 'current'")


def upgrade() -> None:
    """Of several that two platforms took on together the newest seals; the others open what they sealed."""
    op.execute(
        "UPDATE master_keys SET state = 'retiring' WHERE state = 'current' AND id <>"
        " (SELECT id FROM master_keys WHERE state = 'current' ORDER BY since DESC, id DESC LIMIT 1)"
    )
    op.create_index(
        "ix_master_keys_current",
        "master_keys",
        ["state"],
        unique=True,
        sqlite_where=_CURRENT,
        postgresql_where=_CURRENT,
    )
