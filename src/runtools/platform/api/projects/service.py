"""What can be done with projects: making, naming, taking away, and moving things between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic.alias_generators import to_camel

from runtools.errors import Conflict, NotFound, ProjectInUse
from runtools.platform.api.calls import Call
from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.definitions.tables import Row
from runtools.platform.api.deploys import checks
from runtools.platform.api.deploys import store as deploys
from runtools.platform.api.deploys.boxes import name_of
from runtools.platform.api.keys import store as keys
from runtools.platform.api.projects import store
from runtools.platform.api.projects.store import Project
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.ssh_keys import store as ssh_keys
from runtools.platform.core.ids import is_sandbox_id, new_id
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.projects import ProjectChange, ProjectCreate, ProjectMove

_NONE: Mapping[str, int] = {}

Look = Callable[["Filled"], bytes]
"""How a project is shown in an answer, which is kept with what it tells of."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A project, and how many living things of each kind lie in it."""

    project: Project
    counts: Mapping[str, int]


async def create(call: Call, wanted: ProjectCreate) -> Filled:
    """A new project."""
    fresh = Project(
        id=new_id("prj"),
        org_id=call.org,
        name=wanted.name,
        is_default=False,
        created_at=call.platform.clock.now(),
        color=wanted.color,
        op=call.op,
    )
    made = await call.once(store.made_by, lambda: call.made(store.add, fresh))
    return Filled(made, _NONE)


async def page(call: Call, after: str | None, limit: int) -> list[Filled]:
    """A page of the org's projects."""
    found = await call.platform.db.read(store.page, call.org, after, limit)
    counts = await call.platform.db.read(store.counts, call.org)
    return [Filled(project, counts.get(project.id, _NONE)) for project in found]


async def get(call: Call, ref: str) -> Filled:
    """One of them, by id or name."""
    return await call.platform.db.read(_filled, call.org, ref)


async def change(call: Call, ref: str, wanted: ProjectChange, look: Look) -> Filled:
    """Another name or colour; what is left out stays."""
    return await call.settled(look, _change, call.org, ref, wanted)


async def remove(call: Call, ref: str, target: str | None, look: Look) -> Filled:
    """Take one away that is empty, or whose things go to another; returns it without them."""
    return await call.settled(look, _remove, call.org, ref, target)


async def move(call: Call, ref: str, wanted: ProjectMove, look: Look) -> Filled:
    """Put things into a project: all of those that are named, or none."""
    return await call.settled(look, _move, call.org, ref, wanted)


async def found(call: Call, ref: str | None) -> str | None:
    """The id of the project that a filter names; None for no filter.

    Raises:
        NotFound: the org has none of that id or name.
    """
    if ref is None:
        return None
    project_id = await call.platform.db.read(store.find, call.org, ref)
    if project_id is None:
        raise store.unknown(ref)
    return project_id


def _filled(conn: Transaction, org_id: str, ref: str) -> Filled:
    project = store.held(conn, org_id, ref)
    if project is None:
        raise store.unknown(ref, "ref")
    return Filled(project, store.counts(conn, org_id).get(project.id, _NONE))


def _change(conn: Transaction, org_id: str, ref: str, wanted: ProjectChange) -> Filled:
    project = _locked(conn, org_id, ref)
    said = wanted.model_dump(by_alias=False, exclude_unset=True)
    if said.get("name", project.name) is None:
        raise http.wrong_field("name", "a project has one")
    fresh = replace(project, **said)
    if fresh.name != project.name:
        deploys.refuse_beside(conn, project.id)
    store.change(conn, fresh)
    if fresh.name != project.name:
        _rename_standing(conn, fresh)
    return _filled(conn, org_id, project.id)


def _rename_standing(conn: Transaction, project: Project) -> None:
    """Its standing sandboxes are named after it: whatever its next deploy makes has their old names free.

    Raises:
        NameTaken: another sandbox bears the name that one of them is to have.
    """
    boxes = {
        row.sandbox_id: name_of(project.name, row.slug)
        for row in definitions.standing(conn, project.org_id, project.id)
        if row.sandbox_id is not None and row.state != "stopped"
    }
    # None first: one may get the name that another of them has had.
    for sandbox_id in boxes:
        sandboxes.change(conn, sandbox_id, {"name": None})
    for sandbox_id, name in boxes.items():
        sandboxes.rename(conn, sandbox_id, name)


def _remove(conn: Transaction, org_id: str, ref: str, target: str | None) -> Filled:
    project = _locked(conn, org_id, ref)
    if project.is_default:
        raise Conflict(
            f"{project.name} is the org's default project", hint="every org keeps that one"
        )
    heir = store.held(conn, org_id, target)
    if heir is None or heir.id == project.id:
        raise store.unknown(target or "default", "moveTo")
    lies = store.counts(conn, org_id).get(project.id, _NONE)
    if standing := {kind: lies[kind] for kind in store.STANDING.values() if kind in lies}:
        what = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in standing.items())
        raise ProjectInUse(
            f"{what} stand in project {project.name}",
            hint="they go by a deploy: runtools deploy --prune of a project that defines none",
            details=dict(standing),
        )
    if lies and target is None:
        what = ", ".join(f"{kind.replace('_', ' ')}: {count}" for kind, count in lies.items())
        raise ProjectInUse(
            f"project {project.name} is not empty ({what})",
            hint="move them elsewhere first, or name where they go: moveTo (--move-to)",
            details=dict(lies),
        )
    deploys.refuse_beside(conn, project.id)
    # What has ended stays on record, so it needs a place, too.
    store.move_all(conn, org_id, project.id, heir.id)
    store.remove(conn, org_id, project.id)
    return Filled(project, _NONE)


def _move(conn: Transaction, org_id: str, ref: str, wanted: ProjectMove) -> Filled:
    """One after the other as they are locked elsewhere: agents, threads, sandboxes, runs."""
    project = store.held(conn, org_id, ref)
    if project is None:
        raise store.unknown(ref, "ref")
    agents = _move_agents(conn, org_id, wanted.agents, project)
    for kind in store.KINDS:
        refs: Sequence[str] = getattr(wanted, kind)
        field = to_camel(kind)
        ids = [_FIND[kind](conn, org_id, one, f"{field}.{n}") for n, one in enumerate(refs)]
        if kind == "sandboxes":
            _refuse_standing(conn, org_id, ids, project)
        store.move(conn, org_id, kind, ids, project.id)
    definitions.move_runs(conn, org_id, agents, project.id)
    return _filled(conn, org_id, project.id)


def _move_agents(
    conn: Transaction, org_id: str, refs: Sequence[str], project: Project
) -> list[str]:
    """Put agents into a project that has what they name, while nobody deploys into it or out of it.

    Returns the ids of those that were elsewhere; their runs are left where they are.
    """
    rows = {
        row.id: row
        for row in (_agent(conn, org_id, ref, f"agents.{n}") for n, ref in enumerate(refs))
        if row.project_id != project.id
    }
    if not rows:
        return []
    # In one order: of two moves that cross, one waits for the other.
    for one in sorted({project.id, *(row.project_id for row in rows.values())}):
        deploys.refuse_beside(conn, one)
    there = definitions.standing(conn, org_id, project.id)
    for seen in rows.values():
        # Once more: what was read before it was this transaction's turn may have been deployed since.
        found = definitions.find(conn, org_id, "agent", seen.id, seen.project_id)
        if not found:
            raise _gone(seen)
        agent = AgentDefinition.model_validate(found[0].says)
        checks.check_there(agent, there, f"agent {seen.slug}")
        if not definitions.move(conn, org_id, seen.id, project.id):
            raise _gone(seen)
    return list(rows)


def _gone(row: Row) -> NotFound:
    return NotFound(f"agent {row.slug} ({row.id}) is not there any more")


def _locked(conn: Transaction, org_id: str, ref: str) -> Project:
    project = store.locked(conn, org_id, ref)
    if project is None:
        raise store.unknown(ref, "ref")
    return project


def _sandbox(conn: Transaction, org_id: str, ref: str, field: str) -> str:
    find = sandboxes.by_id if is_sandbox_id(ref) else sandboxes.by_name
    record = find(conn, org_id, ref)
    if record is None:
        raise NotFound(f"no sandbox {ref[:80]!r}", details={"field": field})
    return record.id


def _refuse_standing(
    conn: Transaction, org_id: str, sandbox_ids: Sequence[str], project: Project
) -> None:
    """Refuse to take a sandbox away from its definition; where that is it may be put."""
    for n, sandbox_id in enumerate(sandbox_ids):
        slug = store.stands_for(conn, org_id, sandbox_id, project.id)
        if slug is None:
            continue
        raise Conflict(
            f"{sandbox_id} stands for {slug} of its project, and goes where its definition is",
            hint="deploy the definition into the other project, or name the sandbox without it there",
            details={"field": f"sandboxes.{n}", "slug": slug},
        )


def _api_key(conn: Transaction, org_id: str, ref: str, field: str) -> str:
    key = keys.find(conn, org_id, ref)
    if key is None:
        raise NotFound(f"no API key {ref[:80]!r}", details={"field": field})
    return key.id


def _ssh_key(conn: Transaction, org_id: str, ref: str, field: str) -> str:
    key = ssh_keys.find(conn, org_id, ref)
    if key is None:
        raise NotFound(f"no SSH key {ref[:80]!r}", details={"field": field})
    return key.id


def _agent(conn: Transaction, org_id: str, ref: str, field: str) -> Row:
    found = definitions.find(conn, org_id, "agent", ref, None)
    if not found:
        raise NotFound(f"no agent {ref[:80]!r}", details={"field": field})
    if len(found) > 1:
        raise Conflict(
            f"several projects have an agent {ref!r}",
            hint="name it by its id",
            details={"field": field},
        )
    return found[0]


_FIND = {"sandboxes": _sandbox, "api_keys": _api_key, "ssh_keys": _ssh_key}
