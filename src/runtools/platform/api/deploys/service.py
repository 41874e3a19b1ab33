"""Planning a deploy, beginning it, and looking at it.

The plan is made here, of what stands at the moment, both when it is shown and when it is to be carried out:
the second must be the first, or nothing is done. From then on the deploy is the platform's own business
(`work`): whoever asked for it may go away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runtools.errors import Conflict, LossUnconfirmed, NotFound, PlanStale
from runtools.platform.api.calls import Call
from runtools.platform.api.definitions.stood import stood
from runtools.platform.api.deploys import checks, plan, store, work
from runtools.platform.api.deploys.plan import Step, Stood
from runtools.platform.api.deploys.tables import Row
from runtools.platform.api.points import reach
from runtools.platform.api.projects import store as projects
from runtools.platform.api.projects.store import Project
from runtools.platform.api.vault.vault import Vault
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import to_wire
from runtools.sdk.shapes.deploys import DeployRequest, Plan, PlanRequest


async def make_plan(call: Call, wanted: PlanRequest) -> Plan:
    """What a deploy of these definitions would do now."""
    wanted = checks.check_plain(wanted)
    await call.platform.schemas.check(checks.schemas(wanted))
    there, standing = await call.platform.db.read(
        _standing, call.platform.vault, call.org, wanted.project
    )
    steps = _steps(wanted, standing)
    checks.check_whole(steps, standing)
    checks.check_secrets(call.who, steps)
    await checks.check_models(call, steps)
    await checks.check_sandboxes(call, wanted.project, steps)
    return Plan(
        project=wanted.project,
        makes_project=there is None,
        changes=[step.change for step in steps],
        notes=checks.notes(steps, standing),
        digest=plan.digest(wanted.project, steps),
    )


async def begin(call: Call, wanted: DeployRequest) -> Row:
    """Take a deploy on; it is carried out beside the request."""
    platform = call.platform
    wanted = wanted.model_copy(update=dict(checks.check_plain(wanted)))

    async def begun() -> Row:
        shown = await make_plan(call, wanted)  # what stands may have changed what is legal
        _compare(wanted, shown.digest)
        row = await call.made(_begin, call, wanted)
        reach("api.deploy.written")
        return row

    known = await call.once(store.by_op, begun)
    if known.state == "running":
        platform.spawn(work.carry_out(platform, known.id), f"carrying out {known.id}")
    return known


async def find(call: Call, deploy_id: str) -> Row:
    """One of the org's deploys."""
    found = await call.platform.db.read(store.find, call.org, deploy_id)
    if found is None:
        raise NotFound(f"no deploy {deploy_id[:80]!r}", hint="runtools deploys list shows them")
    return found


async def cancel(call: Call, deploy_id: str) -> Row:
    """Have a deploy end before its next change, or in the middle of a setup; what is done stays done.

    Raises:
        NotFound: the org has none of that id.
        Conflict: it has ended.
    """
    stood = await call.platform.db.write(store.cancel, call.org, deploy_id, call.actor)
    row = await find(call, deploy_id)
    if stood != "running":
        raise Conflict(f"{row.id} has ended ({row.state})", hint="there is nothing to cancel")
    return row


async def progress(call: Call, deploy_id: str, done: int, seconds: float) -> Row:
    """The deploy, once more than so many of its changes are done or it has ended; or when time is up."""
    platform = call.platform
    deadline = platform.clock.monotonic() + seconds
    with platform.bus.watching(deploy_id) as watch:
        while True:
            row = await find(call, deploy_id)
            left = deadline - platform.clock.monotonic()
            if row.state != "running" or row.done > done or left <= 0:
                return row
            await watch.wait(left)


def _standing(
    conn: Transaction, vault: Vault, org_id: str, project: str
) -> tuple[str | None, list[Stood]]:
    project_id = projects.find(conn, org_id, project)
    if project_id is None:
        return None, []
    return project_id, stood(conn, vault, org_id, project_id)


def _steps(wanted: PlanRequest, standing: Sequence[Stood]) -> list[Step]:
    only = frozenset(wanted.only) or frozenset(plan.ORDER)
    return plan.steps(wanted.definitions, standing, only=only, prune=wanted.prune)


def _compare(wanted: DeployRequest, digest: str) -> None:
    if digest != wanted.plan:
        raise PlanStale(
            f"what stands in project {wanted.project} has changed since the plan was shown;"
            " nothing was done",
            hint="look at the new plan: run it again",
        )


def _begin(conn: Transaction, call: Call, wanted: DeployRequest) -> Row:
    """One transaction: the plan is still the one that was confirmed, and nobody else deploys."""
    vault, now = call.platform.vault, call.platform.clock.now()
    # Held by its name: from here on nobody names it otherwise, or takes it away.
    there = projects.held(conn, call.org, wanted.project)
    project_id = new_id("prj") if there is None else there.id
    if there is None:
        projects.add(
            conn, Project(project_id, call.org, wanted.project, is_default=False, created_at=now)
        )
    store.refuse_beside(conn, project_id)
    standing = stood(conn, vault, call.org, project_id)
    steps = _steps(wanted, standing)
    _compare(wanted, plan.digest(wanted.project, steps))
    # The plan holds what changes; what the rest says may have changed since it was looked at.
    checks.check_whole(steps, standing)
    checks.check_secrets(call.who, steps)
    _check_losses(wanted, steps)
    deploy_id = new_id("dep")
    values: dict[str, Any] = {
        "id": deploy_id,
        "org_id": call.org,
        "project_id": project_id,
        "op": call.op,
        "actor": call.actor,
        "commit_id": None if wanted.commit is None else wanted.commit.id,
        "dirty": None if wanted.commit is None else wanted.commit.dirty,
        "created_at": now,
    }
    changes = [step.change.model_dump(mode="json") for step in steps]
    store.add(conn, vault, values, changes, json.dumps([_work(step) for step in steps]))
    row = store.find(conn, call.org, deploy_id)
    assert row is not None  # noqa: S101 - it was written above
    return row


def _check_losses(wanted: DeployRequest, steps: Sequence[Step]) -> None:
    lost = {step.change.slug for step in steps if step.change.loses_data}
    if missing := sorted(lost.difference(wanted.losing)):
        raise LossUnconfirmed(
            f"the plan loses the data of {', '.join(missing)}; nothing was done",
            hint="confirm it: runtools deploy asks, and the API takes their slugs as `losing`",
            details={"sandboxes": missing},
        )


def _work(step: Step) -> dict[str, Any]:
    """A step as `work` reads it."""
    return {
        "action": step.change.action,
        "kind": step.change.kind,
        "slug": step.change.slug,
        "fields": [one.field for one in step.change.fields],
        "wanted": None if step.wanted is None else to_wire(step.wanted),
        "definition_id": None if step.stood is None else step.stood.id,
        "sandbox_id": None if step.stood is None else step.stood.sandbox_id,
    }
