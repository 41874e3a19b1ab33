"""The first tables: orgs, projects, keys, hosts, templates, sandboxes, ledger, snapshots, repeats."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("view", sa.JSON(), nullable=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    op.create_table(
        "orgs",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("ledger_last", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orgs")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("prefix", sa.String(length=24), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("op", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_api_keys_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_index(op.f("ix_api_keys_org_id_op"), "api_keys", ["org_id", "op"], unique=True)
    op.create_table(
        "idempotency",
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("key_digest", sa.String(length=64), nullable=False),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("op", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("data", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_idempotency_org_id")),
        sa.PrimaryKeyConstraint("org_id", "key_digest", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)
    op.create_table(
        "ledger",
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("operation", sa.String(length=16), nullable=True),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("look", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_ledger_org_id")),
        sa.PrimaryKeyConstraint("org_id", "id", name=op.f("pk_ledger")),
    )
    op.create_index(
        op.f("ix_ledger_org_id_sandbox_id_id"),
        "ledger",
        ["org_id", "sandbox_id", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_ledger_sandbox_id_epoch_seq"),
        "ledger",
        ["sandbox_id", "epoch", "seq"],
        unique=True,
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_projects_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("org_id", "name", name=op.f("uq_projects_org_id_name")),
    )
    op.create_table(
        "template_versions",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("recipe", sa.String(length=63), nullable=False),
        sa.Column("apt", sa.JSON(), nullable=False),
        sa.Column("run", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("op", sa.String(length=64), nullable=False),
        sa.Column("drop_op", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_template_versions_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_template_versions")),
        sa.UniqueConstraint(
            "org_id", "slug", "version", name=op.f("uq_template_versions_org_id_slug_version")
        ),
    )
    op.create_index(
        op.f("ix_template_versions_org_id_op"), "template_versions", ["org_id", "op"], unique=True
    )
    op.create_table(
        "sandboxes",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=True),
        sa.Column("template_id", sa.String(length=24), nullable=False),
        sa.Column("template", sa.String(length=63), nullable=False),
        sa.Column("template_version", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.String(length=24), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("env_names", sa.JSON(), nullable=False),
        sa.Column("guest", sa.JSON(), nullable=True),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("internet", sa.Boolean(), nullable=False),
        sa.Column("idle_timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("max_lifetime_seconds", sa.Integer(), nullable=True),
        sa.Column("require_isolation", sa.String(length=16), nullable=True),
        sa.Column("may_queue", sa.Boolean(), nullable=False),
        sa.Column("born", sa.String(length=8), nullable=False),
        sa.Column("born_op", sa.String(length=64), nullable=False),
        sa.Column("born_n", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("wanted", sa.String(length=8), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("wish_op", sa.String(length=64), nullable=False),
        sa.Column("wish_actor", sa.String(length=64), nullable=False),
        sa.Column("wish_open", sa.Boolean(), nullable=False),
        sa.Column("wished_at", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("operation", sa.String(length=16), nullable=True),
        sa.Column("isolation", sa.String(length=8), nullable=True),
        sa.Column("started_from", sa.String(length=8), nullable=True),
        sa.Column("timings", sa.JSON(), nullable=True),
        sa.Column("queue", sa.JSON(), nullable=True),
        sa.Column("durable", sa.Boolean(), nullable=False),
        sa.Column("ending", sa.JSON(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("paused_at", sa.BigInteger(), nullable=True),
        sa.Column("stopped_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_sandboxes_org_id")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_sandboxes_project_id")
        ),
        sa.ForeignKeyConstraint(
            ["template_id"], ["template_versions.id"], name=op.f("fk_sandboxes_template_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sandboxes")),
    )
    op.create_index("ix_sandboxes_born", "sandboxes", ["org_id", "born_op", "born_n"], unique=True)
    op.create_index(
        "ix_sandboxes_living_name",
        "sandboxes",
        ["org_id", "name"],
        unique=True,
        sqlite_where=sa.text("state <> 'stopped' AND name IS NOT NULL"),
        postgresql_where=sa.text("state <> 'stopped' AND name IS NOT NULL"),
    )
    op.create_index("ix_sandboxes_name", "sandboxes", ["org_id", "name"], unique=False)
    op.create_index(
        "ix_sandboxes_newest", "sandboxes", ["org_id", "created_at", "id"], unique=False
    )
    op.create_index(
        "ix_sandboxes_wish_open",
        "sandboxes",
        ["wished_at"],
        unique=False,
        sqlite_where=sa.text("wish_open"),
        postgresql_where=sa.text("wish_open"),
    )
    op.create_table(
        "sandbox_tags",
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name=op.f("fk_sandbox_tags_sandbox_id")
        ),
        sa.PrimaryKeyConstraint("sandbox_id", "key", name=op.f("pk_sandbox_tags")),
    )
    op.create_index(
        op.f("ix_sandbox_tags_key_value"), "sandbox_tags", ["key", "value"], unique=False
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("org_id", sa.String(length=24), nullable=False),
        sa.Column("sandbox_id", sa.String(length=24), nullable=False),
        sa.Column("host_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=True),
        sa.Column("template_id", sa.String(length=24), nullable=False),
        sa.Column("template", sa.String(length=63), nullable=False),
        sa.Column("template_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("op", sa.String(length=64), nullable=False),
        sa.Column("drop_op", sa.String(length=64), nullable=True),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("standstill_ms", sa.Float(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_snapshots_org_id")),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name=op.f("fk_snapshots_sandbox_id")
        ),
        sa.ForeignKeyConstraint(
            ["template_id"], ["template_versions.id"], name=op.f("fk_snapshots_template_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
    )
    op.create_index(
        "ix_snapshots_name",
        "snapshots",
        ["sandbox_id", "name"],
        unique=True,
        sqlite_where=sa.text("name IS NOT NULL AND state <> 'dropped'"),
        postgresql_where=sa.text("name IS NOT NULL AND state <> 'dropped'"),
    )
    op.create_index(op.f("ix_snapshots_org_id_op"), "snapshots", ["org_id", "op"], unique=True)
    op.create_index(
        op.f("ix_snapshots_sandbox_id_created_at"),
        "snapshots",
        ["sandbox_id", "created_at"],
        unique=False,
    )
