"""The tables of deployed definitions and their versions, and their rows as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text, text

from runtools.platform.api.vault.store import SealedColumn
from runtools.platform.api.vault.vault import Sealed
from runtools.platform.kit.db import Document, Moment, metadata
from runtools.sdk.shapes.definitions import Kind
from runtools.sdk.shapes.dev_urls import Access

_STANDING = text("deleted_at IS NULL")

definitions = Table(
    "definitions",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("project_id", String(24), ForeignKey("projects.id"), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("slug", String(63), nullable=False),
    # The version in force, and the newest there is.
    Column("version", Integer, nullable=False),
    Column("latest_version", Integer, nullable=False),
    # The sandbox that stands for the slug.
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id")),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("deleted_at", Moment),
    Index(
        "ix_definitions_standing",
        "project_id",
        "kind",
        "slug",
        unique=True,
        sqlite_where=_STANDING,
        postgresql_where=_STANDING,
    ),
    Index(None, "org_id", "kind", "slug"),
)

# They outlive what they are versions of: a run tells its version by the id.
definition_versions = Table(
    "definition_versions",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("definition_id", String(24), ForeignKey("definitions.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("says", Document, nullable=False),
    # What of it is private: the environment of a sandbox.
    Column("key_id", String(16)),
    Column("sealed", Text),
    Column("deploy_id", String(24), ForeignKey("deploys.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "definition_id", "version", unique=True),
)

LABEL = "definition"
SEALED = SealedColumn(definition_versions, key=("id",), place=("id",), label=LABEL)


@dataclass(frozen=True, slots=True)
class Row:
    """A deployed thing and its version in force."""

    id: str
    org_id: str
    project_id: str
    project: str
    kind: Kind
    slug: str
    version: int
    latest_version: int
    sandbox_id: str | None
    created_at: datetime
    updated_at: datetime
    version_id: str
    says: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A version: what it says, and the deploy that made it."""

    id: str
    version: int
    says: dict[str, Any]
    deploy_id: str
    actor: str
    commit_id: str | None
    dirty: bool | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands under a slug; of a sandbox, what has become of it.

    ``sealed`` holds what is private of what it says.
    """

    sealed: Sealed | None
    id: str
    kind: Kind
    slug: str
    version: int
    sandbox_id: str | None
    version_id: str
    says: dict[str, Any]
    state: str | None
    wanted: str | None
    internet: bool | None
    egress: dict[str, list[str]] | None
    dev_urls: Access | None
