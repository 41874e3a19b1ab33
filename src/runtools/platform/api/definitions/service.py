"""Deployed definitions: finding one, its versions, putting one back, taking one away."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from runtools.errors import Conflict, NotFound
from runtools.platform.api.calls import Call
from runtools.platform.api.definitions import store
from runtools.platform.api.definitions.tables import Made, Row
from runtools.platform.api.deploys import checks
from runtools.platform.api.deploys import store as deploys
from runtools.platform.api.lists import cut
from runtools.platform.api.projects import service as projects
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import AgentDefinition, Kind
from runtools.sdk.shapes.deploys import Commit

_MAX_VERSION = 2**31 - 1
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


async def find(call: Call, kind: Kind, ref: str, project: str | None) -> Row:
    """One of the org's things by id or slug.

    Raises:
        NotFound: there is none.
        Conflict: several projects have one of that slug.
    """
    project_id = await projects.found(call, project)
    named = ref.replace("\0", "")[:80]
    found = await call.platform.db.read(store.find, call.org, kind, named, project_id)
    return _only(found, kind, ref)


async def page(
    call: Call, kind: Kind, project: str | None, cursor: str | None, limit: int
) -> tuple[Sequence[Row], str | None]:
    """A page of them by slug, and where the next one begins."""
    after = ("", "") if cursor is None else http.position(cursor, str, str)
    project_id = await projects.found(call, project)
    found = await call.platform.db.read(
        store.page, call.org, kind, project_id, (after[0], after[1]), limit + 1
    )
    return cut(found, limit, lambda row: http.cursor(row.slug, row.id))


async def versions(
    call: Call, row: Row, cursor: str | None, limit: int
) -> tuple[Sequence[Made], str | None]:
    """A page of its versions, the newest first."""
    below = _MAX_VERSION if cursor is None else min(http.position(cursor, int)[0], _MAX_VERSION)
    found = await call.platform.db.read(store.versions, call.org, row.id, below, limit + 1)
    return cut(found, limit, lambda made: http.cursor(made.version))


async def version(call: Call, row: Row, ref: str) -> Made:
    """One of its versions, by number or id."""
    named: int | str = int(ref) if _NUMBER.fullmatch(ref) else ref.replace("\0", "")[:80]
    found = await call.platform.db.read(store.version, call.org, row.id, named)
    if found is None:
        raise _no_version(row, ref[:80])
    return found


async def roll_back(
    call: Call,
    kind: Kind,
    ref: str,
    project: str | None,
    to: int | None,
    look: Callable[[Row], bytes],
) -> Row:
    """Put another version in force: that one, or the one before the one in force.

    Args:
        look: how it is shown in the answer, which is kept with what it tells of.
    """
    row = await find(call, kind, ref, project)
    return await call.settled(look, _roll_back, call, row, to, call.platform.clock.now())


async def remove(
    call: Call, kind: Kind, ref: str, project: str | None, look: Callable[[Row], bytes]
) -> Row:
    """Take one away; its versions stay on record. ``look`` is as in `roll_back`."""
    row = await find(call, kind, ref, project)
    return await call.settled(look, _remove, call.org, row, call.platform.clock.now())


def told(row: Row) -> dict[str, Any]:
    """What the shapes of all kinds have in common."""
    return {
        "id": row.id,
        "slug": row.slug,
        "project_id": row.project_id,
        "project": row.project,
        "version": row.version,
        "latest_version": row.latest_version,
        "version_id": row.version_id,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def told_version(row: Row, made: Made) -> dict[str, Any]:
    """The same of versions."""
    commit = None
    if made.commit_id is not None:
        commit = Commit(id=made.commit_id, dirty=bool(made.dirty))
    return {
        "id": made.id,
        "version": made.version,
        "current": made.version == row.version,
        "deploy_id": made.deploy_id,
        "actor": made.actor,
        "commit": commit,
        "created_at": made.created_at,
    }


def _only(found: Sequence[Row], kind: Kind, ref: str) -> Row:
    if not found:
        raise NotFound(f"no {kind} {ref[:80]!r}", hint=f"runtools {kind} list shows them")
    if len(found) > 1:
        raise Conflict(
            f"several projects have {'an' if kind == 'agent' else 'a'} {kind} {ref!r}",
            hint="say which project: --project NAME, or ?projectId= in the API",
            details={"projects": sorted(row.project for row in found)},
        )
    return found[0]


def _roll_back(conn: Transaction, call: Call, seen: Row, to: int | None, now: datetime) -> Row:
    deploys.refuse_beside(conn, seen.project_id)
    # Once more: another may have been put in force before it was this transaction's turn.
    row = _still(conn, call.org, seen)
    target = row.version - 1 if to is None else to
    made = store.version(conn, call.org, row.id, target)
    if made is None:
        raise _no_version(row, target)
    if row.kind == "agent":
        standing = store.standing(conn, call.org, row.project_id)
        checks.check_return(call.who, AgentDefinition.model_validate(made.says), standing)
    store.put_back(conn, call.org, row.id, target, now)
    return _still(conn, call.org, row)


def _still(conn: Transaction, org_id: str, row: Row) -> Row:
    found = store.find(conn, org_id, row.kind, row.id, None)
    if not found:
        raise NotFound(f"{row.kind} {row.slug} has just been deleted")
    return found[0]


def _remove(conn: Transaction, org_id: str, row: Row, now: datetime) -> Row:
    deploys.refuse_beside(conn, row.project_id)
    agents = [one for one in store.standing(conn, org_id, row.project_id) if one.kind == "agent"]
    users = sorted(one.slug for one in agents if row.slug in one.says["tools"])
    if row.kind == "tool" and users:
        raise Conflict(
            f"tool {row.slug} is named by {', '.join(users[:10])}",
            hint="deploy those without it first",
            details={"agents": users},
        )
    if not store.remove(conn, org_id, row.id, now):
        raise NotFound(f"{row.kind} {row.slug} has just been deleted")
    return row


def _no_version(row: Row, number: int | str) -> NotFound:
    return NotFound(
        f"{row.kind} {row.slug} has no version {number}",
        hint=f"runtools {row.kind} versions {row.slug} shows them",
    )
