# Generated from sdk/deploys.py by scripts/generate_sync.py: edit that, then run it.
"""Deploys of a project's definitions."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from runtools.errors import RunToolsError
from runtools.sdk import wire
from runtools.sdk.concurrency import sync_sleep
from runtools.sdk.patience import FOLLOW_SECONDS, Patience
from runtools.sdk.shapes.definitions import Definition, Kind, kind_of, to_wire
from runtools.sdk.shapes.deploys import Commit, Deploy, Plan
from runtools.sdk.sync.transport import Transport

_PAGE = 100
_WAIT_SECONDS = 20
_FIELDS: dict[Kind, str] = {"tool": "tools", "sandbox": "sandboxes", "agent": "agents"}


class Deploys:
    """Deploys: ``rt.deploys``. `plan`, then `create` with what the plan says, then `follow`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def plan(
        self,
        project: str,
        definitions: Sequence[Definition],
        *,
        only: Sequence[Kind] = (),
        prune: bool = False,
    ) -> Plan:
        """What a deploy of these definitions would change now. Nothing is changed.

        Args:
            project: its name; a deploy makes one that is not there.
            definitions: all that the project defines.
            only: kinds that are looked at; default: all.
            prune: also delete what stands and is defined no more.
        """
        body = _body(project, definitions, only, prune)
        answer = self._transport.call("POST", "/deploys/plan", body=body, seconds=wire.ACT_SECONDS)
        return wire.shape(Plan, answer.data)

    def create(
        self,
        plan: Plan,
        definitions: Sequence[Definition],
        *,
        only: Sequence[Kind] = (),
        prune: bool = False,
        losing: Sequence[str] = (),
        commit: Commit | None = None,
    ) -> Deploy:
        """Have a plan carried out; returns when it is taken on. It goes on by itself then.

        Args:
            plan: of the same definitions, `only` and `prune`.
            losing: slugs of the sandboxes that are confirmed to lose their data.
            commit: where in their history the files stand.

        Raises:
            PlanStale: what stands has changed since the plan was made.
            LossUnconfirmed: the plan loses the data of a sandbox that `losing` does not name.
            DeployRunning: another deploy of the project is under way.
        """
        body = _body(plan.project, definitions, only, prune)
        body |= {"plan": plan.digest, "losing": list(losing)}
        if commit is not None:
            body["commit"] = commit.model_dump(mode="json")
        answer = self._transport.call("POST", "/deploys", body=body, seconds=wire.ACT_SECONDS)
        return wire.shape(Deploy, answer.data)

    def get(self, deploy_id: str) -> Deploy:
        """One deploy."""
        answer = self._transport.call("GET", f"/deploys/{wire.segment(deploy_id)}")
        return wire.shape(Deploy, answer.data)

    def cancel(self, deploy_id: str) -> Deploy:
        """Have one end before its next change, or in the middle of a setup; `follow` tells when it has.

        Raises:
            Conflict: it has ended.
        """
        path = f"/deploys/{wire.segment(deploy_id)}/cancel"
        return wire.shape(Deploy, (self._transport.call("POST", path)).data)

    def follow(self, deploy_id: str) -> Generator[Deploy, None, None]:
        """The deploy each time that more of it is done; the last one has ended.

        A platform that goes away meanwhile is waited for: it goes on with the deploy when it is back.
        """
        path, done = f"/deploys/{wire.segment(deploy_id)}", 0
        patience = Patience(FOLLOW_SECONDS)
        while True:
            query: list[tuple[str, object]] = [("waitSeconds", _WAIT_SECONDS), ("done", done)]
            try:
                answer = self._transport.call("GET", path, query=query)
            except RunToolsError as trouble:
                pause = patience.after(trouble)
                if pause is None:
                    raise
                sync_sleep(pause)
                continue
            patience.restart()
            deploy = wire.shape(Deploy, answer.data)
            yield deploy
            if deploy.state != "running":
                return
            done = deploy.done

    def list(self, *, project_id: str | None = None) -> Generator[Deploy, None, None]:
        """The org's deploys, the latest first, or one project's."""
        pages = self._transport.pages("/deploys", [("projectId", project_id)], _PAGE)
        with closing(pages) as items:
            for item in items:
                yield wire.shape(Deploy, item)


def _body(
    project: str, definitions: Sequence[Definition], only: Sequence[Kind], prune: bool
) -> dict[str, Any]:
    told: dict[str, list[Any]] = {field: [] for field in _FIELDS.values()}
    for one in definitions:
        told[_FIELDS[kind_of(one)]].append(to_wire(one))
    return {"project": project, **told, "only": list(only), "prune": prune}
