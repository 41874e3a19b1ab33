"""Deployed definitions in the database: found within an org, or by an id of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from runtools.errors import NameTaken
from runtools.platform.api.definitions.tables import (
    LABEL,
    Made,
    Row,
    Standing,
    definition_versions,
    definitions,
)
from runtools.platform.api.deploys.tables import deploys
from runtools.platform.api.dev_urls.store import ALL, dev_url_choices
from runtools.platform.api.projects.store import projects
from runtools.platform.api.runs.tables import runs
from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.api.threads.tables import threads
from runtools.platform.api.vault.vault import Sealed, Vault
from runtools.platform.core.ids import new_id
from runtools.sdk.shapes.definitions import Kind

PRIVATE = "env"
_IN_FORCE = (definition_versions.c.definition_id == definitions.c.id) & (
    definition_versions.c.version == definitions.c.version
)
_OTHERS = {
    "project": projects.c.name.label("project"),
    "version_id": definition_versions.c.id.label("version_id"),
    "says": definition_versions.c.says,
}
_COLUMNS = [_OTHERS[f.name] if f.name in _OTHERS else definitions.c[f.name] for f in fields(Row)]
_MADE = [
    definition_versions.c.id,
    definition_versions.c.version,
    definition_versions.c.says,
    definition_versions.c.deploy_id,
    deploys.c.actor,
    deploys.c.commit_id,
    deploys.c.dirty,
    definition_versions.c.created_at,
]


def _standing() -> Select[Any]:
    return (
        select(*_COLUMNS)
        .join(definition_versions, _IN_FORCE)
        .join(projects, projects.c.id == definitions.c.project_id)
        .where(definitions.c.deleted_at.is_(None))
    )


def page(
    conn: Connection,
    org_id: str,
    kind: Kind,
    project_id: str | None,
    after: tuple[str, str],
    limit: int,
) -> list[Row]:
    """The org's things of a kind by slug, from after one (slug, id) on."""
    query = _standing().where(definitions.c.org_id == org_id, definitions.c.kind == kind)
    if project_id is not None:
        query = query.where(definitions.c.project_id == project_id)
    slug, definition_id = after
    beside = (definitions.c.slug == slug) & (definitions.c.id > definition_id)
    query = query.where((definitions.c.slug > slug) | beside)
    rows = conn.execute(query.order_by(definitions.c.slug, definitions.c.id).limit(limit))
    return [Row(*row) for row in rows]


def find(
    conn: Connection, org_id: str, kind: Kind, ref: str, project_id: str | None, limit: int = 2
) -> list[Row]:
    """The org's things of that id or slug: several, where projects have the slug in common."""
    named = (definitions.c.id == ref) | (definitions.c.slug == ref)
    query = _standing().where(definitions.c.org_id == org_id, definitions.c.kind == kind, named)
    if project_id is not None:
        query = query.where(definitions.c.project_id == project_id)
    return [Row(*row) for row in conn.execute(query.limit(limit))]


def versions(
    conn: Connection, org_id: str, definition_id: str, below: int, limit: int
) -> list[Made]:
    """Versions of one of the org's things, the newest first, from below a number on."""
    query = _versions(org_id, definition_id).where(definition_versions.c.version < below)
    rows = conn.execute(query.order_by(definition_versions.c.version.desc()).limit(limit))
    return [Made(*row) for row in rows]


def version(conn: Connection, org_id: str, definition_id: str, named: int | str) -> Made | None:
    """One version of one of the org's things, by number or id."""
    column = definition_versions.c.version if isinstance(named, int) else definition_versions.c.id
    query = _versions(org_id, definition_id).where(column == named)
    row = conn.execute(query).first()
    return None if row is None else Made(*row)


def _versions(org_id: str, definition_id: str) -> Select[Any]:
    return (
        select(*_MADE)
        .join(definitions, definitions.c.id == definition_versions.c.definition_id)
        .join(deploys, deploys.c.id == definition_versions.c.deploy_id)
        .where(definitions.c.org_id == org_id, definitions.c.id == definition_id)
    )


def standing(conn: Connection, org_id: str, project_id: str) -> list[Standing]:
    """All that stands in one of the org's projects, with what its sandboxes are now."""
    query = (
        select(
            definitions.c.id,
            definitions.c.kind,
            definitions.c.slug,
            definitions.c.version,
            definitions.c.sandbox_id,
            definition_versions.c.id,
            definition_versions.c.says,
            sandboxes.c.state,
            sandboxes.c.wanted,
            sandboxes.c.internet,
            sandboxes.c.egress,
            dev_url_choices.c.access,
            definition_versions.c.key_id,
            definition_versions.c.sealed,
        )
        .join(definition_versions, _IN_FORCE)
        .join(sandboxes, sandboxes.c.id == definitions.c.sandbox_id, isouter=True)
        .join(
            dev_url_choices,
            (dev_url_choices.c.org_id == definitions.c.org_id)
            & (dev_url_choices.c.sandbox_id == definitions.c.sandbox_id)
            & (dev_url_choices.c.port == ALL),
            isouter=True,
        )
        .where(
            definitions.c.org_id == org_id,
            definitions.c.project_id == project_id,
            definitions.c.deleted_at.is_(None),
        )
    )
    found = []
    for row in conn.execute(query):
        sealed = None if row.sealed is None else Sealed(row.key_id, row.sealed)
        found.append(Standing(sealed, *row[:-2]))
    return found


def put(
    conn: Connection,
    vault: Vault,
    place: tuple[str, str, Kind, str],
    says: Mapping[str, Any],
    deploy_id: str,
    now: datetime,
    sandbox_id: str | None = None,
) -> None:
    """A new version of what stands at (org, project, kind, slug), which it makes where nothing does."""
    org_id, project_id, kind, slug = place
    mine = (
        (definitions.c.org_id == org_id)
        & (definitions.c.project_id == project_id)
        & (definitions.c.kind == kind)
        & (definitions.c.slug == slug)
        & definitions.c.deleted_at.is_(None)
    )
    query = select(definitions.c.id, definitions.c.latest_version).where(mine)
    there = conn.execute(query.with_for_update()).first()
    definition_id, number = (new_id(_IDS[kind]), 1) if there is None else (there[0], there[1] + 1)
    values: dict[str, Any] = {"version": number, "latest_version": number, "updated_at": now}
    if sandbox_id is not None:
        values["sandbox_id"] = sandbox_id
    if there is None:
        values |= {"id": definition_id, "org_id": org_id, "project_id": project_id}
        values |= {"kind": kind, "slug": slug, "created_at": now}
        conn.execute(insert(definitions).values(**values))
    else:
        conn.execute(update(definitions).where(definitions.c.id == definition_id).values(**values))
    _add_version(conn, vault, definition_id, number, says, deploy_id, now)


_IDS: Mapping[Kind, Any] = {"agent": "agt", "tool": "tol", "sandbox": "ssb"}


def _add_version(
    conn: Connection,
    vault: Vault,
    definition_id: str,
    number: int,
    says: Mapping[str, Any],
    deploy_id: str,
    now: datetime,
) -> None:
    version_id, open_, sealed = new_id("ver"), dict(says), None
    if PRIVATE in open_:
        # Not even names with empty values: what is shown is made from the names alone.
        private = open_[PRIVATE]
        sealed = vault.seal(conn, json.dumps(private), LABEL, version_id)
        open_[PRIVATE] = dict.fromkeys(private, "")
    conn.execute(
        insert(definition_versions).values(
            id=version_id,
            definition_id=definition_id,
            version=number,
            says=open_,
            key_id=None if sealed is None else sealed.key_id,
            sealed=None if sealed is None else sealed.sealed,
            deploy_id=deploy_id,
            created_at=now,
        )
    )


def put_back(conn: Connection, org_id: str, definition_id: str, number: int, now: datetime) -> bool:
    """Put another version of one of the org's things in force."""
    changed = conn.execute(
        update(definitions)
        .where(
            definitions.c.org_id == org_id,
            definitions.c.id == definition_id,
            definitions.c.deleted_at.is_(None),
        )
        .values(version=number, updated_at=now)
    )
    return bool(changed.rowcount == 1)


def move(conn: Connection, org_id: str, definition_id: str, project_id: str) -> bool:
    """One of the org's things stands in another project from now on, with all of its versions.

    The threads of an agent go with it, its runs by `move_runs`. False: it stands nowhere any more.

    Raises:
        NameTaken: something of its kind and slug stands there.
    """
    mine = (definitions.c.org_id == org_id) & (definitions.c.id == definition_id)
    try:
        moved = conn.execute(
            update(definitions)
            .where(mine, definitions.c.deleted_at.is_(None))
            .values(project_id=project_id)
        )
    except IntegrityError as exc:
        raise NameTaken(
            "something of that slug stands in the project", hint="delete one of the two first"
        ) from exc
    if moved.rowcount != 1:
        return False
    its = (threads.c.org_id == org_id) & (threads.c.agent_id == definition_id)
    conn.execute(update(threads).where(its).values(project_id=project_id))
    return True


def move_runs(conn: Connection, org_id: str, ids: Sequence[str], project_id: str) -> int:
    """The runs of the org's agents are in another project from now on; returns how many there were."""
    its = (runs.c.org_id == org_id) & runs.c.agent_id.in_(ids)
    return int(conn.execute(update(runs).where(its).values(project_id=project_id)).rowcount)


def project_of(conn: Connection, org_id: str, definition_id: str) -> str | None:
    """The project of one of the org's things, deleted ones too; it stays so until the transaction ends."""
    mine = (definitions.c.org_id == org_id) & (definitions.c.id == definition_id)
    query = select(definitions.c.project_id).where(mine).with_for_update(read=True)
    found: str | None = conn.scalar(query)
    return found


def remove(conn: Connection, org_id: str, definition_id: str, now: datetime) -> bool:
    """One of the org's things stands no more; its versions stay on record."""
    changed = conn.execute(
        update(definitions)
        .where(
            definitions.c.org_id == org_id,
            definitions.c.id == definition_id,
            definitions.c.deleted_at.is_(None),
        )
        .values(deleted_at=now)
    )
    return bool(changed.rowcount == 1)


def sandbox_of(conn: Connection, org_id: str, project_id: str, kind: Kind, slug: str) -> str | None:
    """The id of the sandbox that stands for a slug of the org's project."""
    found: str | None = conn.scalar(
        select(definitions.c.sandbox_id).where(
            definitions.c.org_id == org_id,
            definitions.c.project_id == project_id,
            definitions.c.kind == kind,
            definitions.c.slug == slug,
            definitions.c.deleted_at.is_(None),
        )
    )
    return found


def stands_for(conn: Connection, org_id: str, sandbox_id: str) -> str | None:
    """The id of the org's definition that a sandbox stands for."""
    query = select(definitions.c.id).where(
        definitions.c.org_id == org_id, definitions.c.sandbox_id == sandbox_id
    )
    return conn.scalar(query.limit(1))


def lock(conn: Connection, org_id: str, definition_id: str) -> bool:
    """Hold one of the org's until the transaction's end, for a turn in it; False: there is none."""
    mine = (definitions.c.org_id == org_id) & (definitions.c.id == definition_id)
    return conn.scalar(select(definitions.c.id).where(mine).with_for_update()) is not None
