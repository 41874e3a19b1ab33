"""Runs a migration on the connection that `schema.upgrade` has opened."""

from __future__ import annotations

from alembic import context

from runtools.platform.api.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
