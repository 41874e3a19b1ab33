"""Which fields of queries and bodies name a record, and how an org comes by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtools.testing.tenancy.operations import Params
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import PLACES, Make


@dataclass(frozen=True)
class Reference:
    """A field of queries and bodies that names a record: how an org comes by one.

    ``wraps`` puts it into the shape that the field has.
    """

    make: Make
    wraps: Callable[[str], Any] = field(default=lambda ref: ref)


async def _provider_key(org: Org, _params: Params) -> list[str]:
    body = {"name": org.fresh().upper(), "value": "key", "category": "provider"}
    return [(await org.ask("POST", "/v1/secrets", json=body))["name"]]


async def _cursor(org: Org, _params: Params) -> list[str]:
    await PLACES["/v1/sandboxes/{ref}"](org, {})
    await PLACES["/v1/sandboxes/{ref}"](org, {})
    answer = await org.http.get("/v1/sandboxes?limit=1")
    return [answer.json()["meta"]["nextCursor"]]


async def _actor(org: Org, _params: Params) -> list[str]:
    return [(await org.ask("GET", "/v1/me"))["keyId"]]


def _listed(ref: str) -> list[str]:
    return [ref]


REFERENCES: Mapping[str, Reference] = {
    "actor": Reference(_actor),
    "agent": Reference(PLACES["/v1/agents/{ref}"]),
    "agentSlug": Reference(PLACES["/v1/agents/{ref}"]),
    "agents": Reference(PLACES["/v1/agents/{ref}"], _listed),
    "apiKeys": Reference(PLACES["/v1/api-keys/{key_id}"], _listed),
    "cursor": Reference(_cursor),
    "moveTo": Reference(PLACES["/v1/projects/{ref}"]),
    "project": Reference(PLACES["/v1/projects/{ref}"]),
    "projectId": Reference(PLACES["/v1/projects/{ref}"]),
    "resource": Reference(PLACES["/v1/sandboxes/{ref}"]),
    "sandboxId": Reference(PLACES["/v1/sandboxes/{ref}"]),
    "sandboxes": Reference(PLACES["/v1/sandboxes/{ref}"], _listed),
    "secret": Reference(_provider_key),
    "secrets": Reference(PLACES["/v1/secrets/{name}"], _listed),
    "sshKeys": Reference(PLACES["/v1/ssh-keys/{ref}"], _listed),
    "template": Reference(PLACES["/v1/templates/{slug}"]),
    "threadId": Reference(PLACES["/v1/threads/{thread_id}"]),
    "to": Reference(PLACES["/v1/sandboxes/{ref}/snapshots/{snapshot_ref}"]),
}


def _of_box(name: str) -> Callable[[str], Any]:
    return lambda ref: [{"slug": "box", name: [ref] if name == "secrets" else ref}]


def _of_agent(name: str) -> Callable[[str], Any]:
    said = {"slug": "new", "name": "A", "model": "demo"}
    return lambda ref: [{**said, name: [ref] if name == "tools" else ref}]


def _of_server(ref: str) -> Any:
    server = {"name": "docs", "url": "https://docs.example/mcp", "secret": ref}
    return [{"slug": "new", "name": "A", "model": "demo", "mcpServers": [server]}]


# Fields within those of a body, each with its way; ``wraps`` makes the whole of the outermost.
NESTED: Mapping[str, Reference] = {
    "agents[].mcpServers[].secret": Reference(PLACES["/v1/secrets/{name}"], _of_server),
    "agents[].sandbox": Reference(PLACES["/v1/standing-sandboxes/{ref}"], _of_agent("sandbox")),
    "agents[].tools": Reference(PLACES["/v1/tools/{ref}"], _of_agent("tools")),
    "sandboxes[].secrets": Reference(PLACES["/v1/secrets/{name}"], _of_box("secrets")),
    "sandboxes[].template": Reference(PLACES["/v1/templates/{slug}"], _of_box("template")),
}
# Where a field of such a name is something else.
OTHERWISE: Mapping[str, frozenset[str]] = {
    "GET /v1/usage": frozenset({"to"}),  # a time
    # A name of the caller's own, whoever else has one: it is made where it is not there.
    "POST /v1/deploys": frozenset({"project"}),
    # Nor is a server's secret looked for before a run asks for it; the plan's digest speaks of its name.
    "POST /v1/deploys/plan": frozenset({"project", "agents[].mcpServers[].secret"}),
    "POST /v1/run/ag-ui": frozenset({"threadId"}),  # the front end's own
}
# Names that look like references and are none.
NO_REFERENCES: Mapping[str, str] = {
    "agents[].mcpServers[].tools": "names of what a server can do",
    "messages[].parts[].toolCallId": "a call of the chat's own run",
    "messages[].toolCallId": "a call of the thread's own run",
    "resume[].interruptId": "a call of the thread's own run",
    "tools": "definitions themselves; what an agent names of them is in NESTED",
    "allow": "what may be reached",
    "apt": "packages of the distribution",
    "callId": "a call of the run in the path",
    "command": "words of a command line",
    "deny": "what may not be reached",
    "events": "types of events",
    "keys": "names of keys of a keyboard",
    "losing": "slugs of the caller's own project, which the body names",
    "messageId": "what a front end calls a message of its own",
    "only": "words of the platform's own",
    "processId": "chosen by the caller, for a process of the sandbox in the path",
    "runId": "what a front end calls a run of its own",
    "scopes": "words of the platform's own",
    "state": "words of the platform's own",
    "status": "words of the platform's own",
    "tag": "labels of one's own",
}
