"""What an owner sends, and does before, to have a request granted.

One that is refused to its own owner because it needs a body, a query or a state that cannot be guessed
from the document needs a line in `SCENES`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runtools.platform.api.limits.rules import standard
from runtools.platform.api.runs import log
from runtools.platform.api.runs import store as runs
from runtools.platform.api.runs.log import New
from runtools.platform.kit.db import Transaction
from runtools.testing.tenancy.operations import Params
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import (
    NOWHERE,
    PLACES,
    SLUG,
    of_ag_ui,
    of_ai_sdk,
    public_key,
    work,
)


@dataclass(frozen=True)
class Scene:
    """What is sent and what must have happened before.

    Attributes:
        body: JSON, or bytes as they are; made for an org and its records.
        query: the query string.
        ready: done by the owner before it asks.
        granted: how the owner is answered, where that is no success.
    """

    body: Callable[[Org, Params], Awaitable[Any]] | Mapping[str, Any] | bytes | None = None
    query: str = ""
    ready: Callable[[Org, Params], Awaitable[None]] | None = None
    granted: int | None = None


async def _written(org: Org, params: Params) -> None:
    path = f"/v1/sandboxes/{params['ref']}/files?path=/workspace/file"
    await org.ask("PUT", path, content=b"content")


async def _paused(org: Org, params: Params) -> None:
    await org.ask("POST", f"/v1/sandboxes/{params['ref']}/pause")


async def _died(org: Org, params: Params) -> None:
    await org.world.host.die(params["ref"], "the machine ended")
    await org.world.becomes(params["ref"], org.http, state="stopped")


async def _to_snapshot(org: Org, params: Params) -> dict[str, str]:
    make = PLACES["/v1/sandboxes/{ref}/snapshots/{snapshot_ref}"]
    return {"to": (await make(org, params))[0]}


async def _named(org: Org, _params: Params) -> dict[str, str]:
    return {"name": org.fresh()}


async def _planned(org: Org, _params: Params) -> dict[str, str]:
    body = {"project": "both-have-it"}
    return {**body, "plan": (await org.ask("POST", "/v1/deploys/plan", json=body))["digest"]}


async def _asks(org: Org, params: Params) -> None:
    """A call of the run waits for a person."""
    asked = {"call_id": "c1", "name": "bash", "arguments": {}, "turn": 1}
    await _grow(org, params, New("1:c1", "approval-requested", asked))


async def _at_a_limit(org: Org, params: Params) -> None:
    end = {"status": "limit_reached", "output": None}
    await _grow(org, params, New("done", "done", end), status="running")


async def _grow(org: Org, params: Params, event: New, **values: Any) -> None:
    """Append to the run's log as its worker would."""
    platform = org.world.platform
    now, usual = platform.clock.now(), standard(platform.settings)

    def act(conn: Transaction) -> None:
        record = runs.locked(conn, org.id, params["run_id"])
        assert record is not None
        if values:
            runs.change(conn, record, values)
        log.append(conn, replace(record, **values), [event], now, usual)

    await platform.db.write(act)


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"), io.BytesIO())
    return buffer.getvalue()


_FILE = "path=/workspace/file"
_TO = {"source": "/workspace/file", "target": "/workspace/other"}

SCENES: Mapping[str, Scene] = {
    "DELETE /v1/sandboxes/{ref}/files": Scene(query=_FILE, ready=_written),
    # Sandboxes here have no desktop, which their owner is told and a stranger is not; the routes of those
    # that have one are asked by a stranger in `tests/flow/api/test_desktop.py`.
    **{
        f"{method} /v1/sandboxes/{{ref}}/desktop{end}": Scene(body, granted=409)
        for method, end, body in (
            *(("GET", end, None) for end in ("", "/screenshot", "/clipboard", "/windows")),
            ("POST", "/move", {"x": 1, "y": 1}),
            ("POST", "/click", {}),
            ("POST", "/drag", {"x": 1, "y": 1, "toX": 2, "toY": 2}),
            ("POST", "/scroll", {"down": 1}),
            ("POST", "/type", {"text": "text"}),
            ("POST", "/keys", {"keys": ["a"]}),
            ("POST", "/clipboard", {"text": "text"}),
            ("POST", "/open", {"url": "https://example.org"}),
        )
    },
    "GET /v1/model-endpoints/{slug}/models": Scene(granted=503),  # nobody listens there
    "GET /v1/run/ai-sdk/{chat}/stream": Scene(query=f"agent={SLUG}"),
    "GET /v1/sandboxes/{ref}/files": Scene(query=_FILE, ready=_written),
    "GET /v1/sandboxes/{ref}/files/archive": Scene(query="path=/workspace", ready=_written),
    "GET /v1/sandboxes/{ref}/files/list": Scene(query="path=/workspace", ready=_written),
    "GET /v1/sandboxes/{ref}/files/stat": Scene(query=_FILE, ready=_written),
    "GET /v1/sandboxes/{ref}/files/watch": Scene(query="path=/workspace", ready=_written),
    "PATCH /v1/members/{user_id}": Scene({"role": "member"}),
    "PATCH /v1/org": Scene(_named),
    "PATCH /v1/people/{user_id}": Scene({"operator": True}),
    "POST /v1/invitations": Scene({"email": "both@example.org"}),
    "POST /v1/logins": Scene({"challenge": "0" * 64, "machine": "laptop"}),
    "POST /v1/orgs": Scene({"name": "Acme", "adminEmail": "both@example.org"}),
    "POST /v1/agents/{ref}/rollback": Scene({"version": 1}),
    "POST /v1/api-keys": Scene(_named),
    "POST /v1/deploys": Scene(_planned),
    "POST /v1/deploys/{ref}/cancel": Scene(granted=409),  # it has ended
    "POST /v1/deploys/plan": Scene({"project": "both-have-it"}),
    "POST /v1/model-endpoints": Scene({"slug": "both-have-it", "url": NOWHERE}),
    "POST /v1/projects": Scene({"name": "both-have-it"}),
    "PATCH /v1/threads/{thread_id}": Scene({"title": "another title"}),
    "POST /v1/run": Scene(work, query="waitSeconds=0"),
    "POST /v1/run/ag-ui": Scene(of_ag_ui, query=f"agent={SLUG}"),
    "POST /v1/run/ai-sdk": Scene(of_ai_sdk, query=f"agent={SLUG}"),
    "POST /v1/runs/{run_id}/approve": Scene({"callId": "c1", "decision": "allow"}, ready=_asks),
    "POST /v1/runs/{run_id}/continue": Scene({"message": "Go on."}, ready=_at_a_limit),
    "POST /v1/runs/{run_id}/messages": Scene({"message": "Wait."}),
    "POST /v1/sandboxes/{ref}/exec": Scene({"command": "true"}),
    "POST /v1/sandboxes/{ref}/files/chmod": Scene(
        {"path": "/workspace/file", "mode": 0o600}, ready=_written
    ),
    "POST /v1/sandboxes/{ref}/files/copy": Scene(_TO, ready=_written),
    "POST /v1/sandboxes/{ref}/files/edit": Scene(
        {"path": "/workspace/file", "old": "nothing of it", "new": "x"}, ready=_written, granted=409
    ),
    "POST /v1/sandboxes/{ref}/files/mkdir": Scene({"path": "/workspace/folder"}),
    "POST /v1/sandboxes/{ref}/files/move": Scene(_TO, ready=_written),
    "POST /v1/sandboxes/{ref}/ssh": Scene({"publicKey": public_key("both have it")}),
    "POST /v1/sandboxes/{ref}/processes": Scene({"command": ["true"]}),
    "POST /v1/sandboxes/{ref}/processes/{process_id}/input": Scene(b"input"),
    "POST /v1/sandboxes/{ref}/processes/{process_id}/terminal-ticket": Scene(
        {"origin": "https://page.example"}
    ),
    "POST /v1/sandboxes/{ref}/recover": Scene(ready=_died),
    "POST /v1/sandboxes/{ref}/resume": Scene(ready=_paused),
    "POST /v1/sandboxes/{ref}/rollback": Scene(_to_snapshot),
    "POST /v1/secrets": Scene({"name": "BOTH_HAVE_IT", "value": "a value"}),
    "POST /v1/ssh-keys": Scene({"label": "both", "publicKey": public_key("both have it")}),
    "POST /v1/templates/{slug}/builds": Scene({"recipe": "base-debian"}),
    "POST /v1/tools/{ref}/execute": Scene({"action": "act"}, granted=409),  # nobody runs it yet
    "POST /v1/webhooks": Scene({"url": NOWHERE}),
    "PUT /v1/sandboxes/{ref}/files": Scene(b"content", query=_FILE),
    "PUT /v1/sandboxes/{ref}/files/archive": Scene(_archive(), query="path=/workspace"),
}

# What makes a record under a name that the caller chooses: another org's name is free to it.
MAKES_BY_NAME = frozenset(
    {"POST /v1/templates/{slug}/builds", "POST /v1/sandboxes/{ref}/urls/{port}/links"}
)
