"""How an org comes by a record of each path, and what its owner sends to have a request granted.

A new path with a new parameter needs a line in `PLACES`. A request that is refused to its own owner because
it needs a body, a query or a state that cannot be guessed from the document needs one in `SCENES`.
"""

from __future__ import annotations

import io
import tarfile
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import httpx

from runtools.platform.api.limits.rules import standard
from runtools.platform.api.runs import log
from runtools.platform.api.runs import store as runs
from runtools.platform.api.runs.log import New
from runtools.platform.kit.db import Transaction
from runtools.testing.api_world import World
from runtools.testing.tenancy.operations import Params


@dataclass
class Org:
    """An org, somebody of it, and the word that the names of its records have in them."""

    world: World
    id: str
    word: str
    http: httpx.AsyncClient
    count: int = 0

    def fresh(self) -> str:
        """A name that nobody has had."""
        self.count += 1
        return f"{self.word}{self.count}"

    async def ask(self, method: str, path: str, **sent: Any) -> Any:
        """The data of an answer that must be a success."""
        answer = await self.http.request(method, path, **sent)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json()["data"]


# --- records ---

# Makes one; the path's earlier parameters are known. Returns what it can be called by.
Make = Callable[[Org, Params], Awaitable[list[str]]]


async def _sandbox(org: Org, _params: Params) -> list[str]:
    made = await org.ask("POST", "/v1/sandboxes", json={"name": org.fresh()})
    return [made["id"], made["name"]]


async def _process(org: Org, params: Params) -> list[str]:
    body = {"command": ["sleep", "600"], "terminal": {}}
    made = await org.ask("POST", f"/v1/sandboxes/{params['ref']}/processes", json=body)
    return [made["id"]]


async def _command(org: Org, _params: Params) -> list[str]:
    return [org.fresh()]


async def _port(_org: Org, _params: Params) -> list[str]:
    return ["3000"]


async def _snapshot(org: Org, params: Params) -> list[str]:
    path = f"/v1/sandboxes/{params['ref']}/snapshots"
    made = await org.ask("POST", path, json={"name": org.fresh()})
    return [made["id"], made["name"]]


async def _api_key(org: Org, _params: Params) -> list[str]:
    return [(await org.ask("POST", "/v1/api-keys", json={"name": org.fresh()}))["id"]]


async def _project(org: Org, _params: Params) -> list[str]:
    made = await org.ask("POST", "/v1/projects", json={"name": org.fresh()})
    return [made["id"], made["name"]]


async def _secret(org: Org, _params: Params) -> list[str]:
    body = {"name": org.fresh().upper(), "value": f"value of {org.word}"}
    return [(await org.ask("POST", "/v1/secrets", json=body))["name"]]


async def _provider_key(org: Org, _params: Params) -> list[str]:
    body = {"name": org.fresh().upper(), "value": "key", "category": "provider"}
    return [(await org.ask("POST", "/v1/secrets", json=body))["name"]]


def public_key(word: str) -> str:
    """A public key of a fresh pair: its bytes are the digest of a word."""
    kind = b"ssh-ed25519"
    blob = b"".join(
        len(part).to_bytes(4, "big") + part for part in (kind, sha256(word.encode()).digest())
    )
    return f"{kind.decode()} {b64encode(blob).decode()}"


async def _ssh_key(org: Org, _params: Params) -> list[str]:
    name = org.fresh()
    body = {"label": name, "publicKey": public_key(name)}
    made = await org.ask("POST", "/v1/ssh-keys", json=body)
    return [made["id"], made["label"]]


async def _template(org: Org, _params: Params) -> list[str]:
    slug = org.fresh()
    await org.world.build(slug, org.http, recipe="base-debian")
    return [slug]


async def _webhook(org: Org, _params: Params) -> list[str]:
    return [(await org.ask("POST", "/v1/webhooks", json={"url": NOWHERE}))["id"]]


async def _endpoint(org: Org, _params: Params) -> list[str]:
    body = {"slug": org.fresh(), "url": NOWHERE}
    return [(await org.ask("POST", "/v1/model-endpoints", json=body))["slug"]]


async def _delivery(org: Org, params: Params) -> list[str]:
    return [(await org.ask("POST", f"/v1/webhooks/{params['webhook_id']}/test"))["id"]]


async def _member(org: Org, _params: Params) -> list[str]:
    email = f"{org.fresh()}@example.org"
    made = await org.world.person("member", email=email, org=org.id)
    await made.http.aclose()
    return [made.user_id]


async def _invitation(org: Org, _params: Params) -> list[str]:
    body = {"email": f"{org.fresh()}@example.org"}
    return [(await org.ask("POST", "/v1/invitations", json=body))["id"]]


async def deployed(org: Org, **definitions: list[dict[str, Any]]) -> dict[str, Any]:
    """A deploy that has been carried out, in a project of its own."""
    body: dict[str, Any] = {"project": org.fresh(), **definitions}
    plan = await org.ask("POST", "/v1/deploys/plan", json=body)
    made = await org.ask("POST", "/v1/deploys", json={**body, "plan": plan["digest"]})
    data: dict[str, Any] = {"state": "running"}
    while data["state"] == "running":
        data = await org.ask("GET", f"/v1/deploys/{made['id']}?waitSeconds=20&done=9")
    assert data["state"] == "done", data
    return data


def tool(name: str) -> dict[str, Any]:
    """The definition of a tool with an action `act`."""
    action = {"description": "Acts.", "parameters": {"type": "object"}}
    source = {"entry": "t.py", "files": {"t.py": ""}, "digest": sha256(b"").hexdigest()}
    return {"name": name, "actions": {"act": action}, "source": source}


async def _deploy(org: Org, _params: Params) -> list[str]:
    return [(await deployed(org))["id"]]


async def _agent(org: Org, _params: Params) -> list[str]:
    slug = org.fresh()
    await deployed(org, agents=[{"slug": slug, "name": "A", "model": "demo"}])
    return [(await org.ask("GET", f"/v1/agents/{slug}"))["id"], slug]


async def _tool(org: Org, _params: Params) -> list[str]:
    slug = org.fresh()
    await deployed(org, tools=[tool(slug)])
    return [(await org.ask("GET", f"/v1/tools/{slug}"))["id"], slug]


async def _standing(org: Org, _params: Params) -> list[str]:
    slug = org.fresh()
    await deployed(org, sandboxes=[{"slug": slug}])
    return [(await org.ask("GET", f"/v1/standing-sandboxes/{slug}"))["id"], slug]


async def _agent_version(org: Org, params: Params) -> list[str]:
    return [(await org.ask("GET", f"/v1/agents/{params['ref']}/versions"))[0]["id"]]


async def _tool_version(org: Org, params: Params) -> list[str]:
    return [(await org.ask("GET", f"/v1/tools/{params['ref']}/versions"))[0]["id"]]


async def work(org: Org, _params: Params) -> dict[str, Any]:
    """What an agent is given to do that every org has."""
    found = await org.http.get(f"/v1/agents/{SLUG}")
    if found.status_code == 404:
        await deployed(org, agents=[{"slug": SLUG, "name": "A", "model": "demo"}])
    return {"agentSlug": SLUG, "message": "Work."}


async def _of_ai_sdk(org: Org, params: Params) -> dict[str, Any]:
    """What a front end on the AI SDK asks of it."""
    said = (await work(org, params))["message"]
    parts = [{"type": "text", "text": said}]
    return {"id": "both-have-it", "messages": [{"id": "1", "role": "user", "parts": parts}]}


async def _of_ag_ui(org: Org, params: Params) -> dict[str, Any]:
    """What one on AG-UI asks of it."""
    said = (await work(org, params))["message"]
    messages = [{"id": "1", "role": "user", "content": said}]
    return {"threadId": "both-have-it", "runId": "1", "messages": messages}


async def _chat(org: Org, params: Params) -> list[str]:
    body = {**await _of_ai_sdk(org, params), "id": org.fresh()}
    path = f"/v1/run/ai-sdk?agent={SLUG}"
    async with org.http.stream("POST", path, json=body) as answer:
        assert answer.is_success  # its run goes on without whoever asked
    return [str(body["id"])]


async def _new_run(org: Org) -> dict[str, Any]:
    body = await work(org, {})
    made: dict[str, Any] = await org.ask("POST", "/v1/run?waitSeconds=0", json=body)
    return made


async def _run(org: Org, _params: Params) -> list[str]:
    return [(await _new_run(org))["id"]]


async def _thread(org: Org, _params: Params) -> list[str]:
    made = await _new_run(org)
    await org.ask("POST", f"/v1/runs/{made['id']}/cancel")
    return [made["threadId"]]


SLUG = "both-have-it"
NOWHERE = "http://127.0.0.1:9/"
"""Where nobody listens; the world must allow webhooks to the loopback."""

PLACES: Mapping[str, Make] = {
    "/v1/agents/{ref}": _agent,
    "/v1/agents/{ref}/versions/{version}": _agent_version,
    "/v1/api-keys/{key_id}": _api_key,
    "/v1/invitations/{invitation_id}": _invitation,
    "/v1/members/{user_id}": _member,
    "/v1/people/{user_id}": _member,
    "/v1/deploys/{ref}": _deploy,
    "/v1/model-endpoints/{slug}": _endpoint,
    "/v1/projects/{ref}": _project,
    "/v1/run/ai-sdk/{chat}": _chat,
    "/v1/runs/{run_id}": _run,
    "/v1/threads/{thread_id}": _thread,
    "/v1/sandboxes/{ref}": _sandbox,
    "/v1/sandboxes/{ref}/exec/{process_id}": _command,
    "/v1/sandboxes/{ref}/processes/{process_id}": _process,
    "/v1/sandboxes/{ref}/snapshots/{snapshot_ref}": _snapshot,
    "/v1/sandboxes/{ref}/urls/{port}": _port,
    "/v1/secrets/{name}": _secret,
    "/v1/ssh-keys/{ref}": _ssh_key,
    "/v1/standing-sandboxes/{ref}": _standing,
    "/v1/templates/{slug}": _template,
    "/v1/tools/{ref}": _tool,
    "/v1/tools/{ref}/versions/{version}": _tool_version,
    "/v1/webhooks/{webhook_id}": _webhook,
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}": _delivery,
}

# What is no record of its own, but an id that callers choose inside the record before it.
CHOSEN = frozenset(
    {
        "/v1/run/ai-sdk/{chat}",
        "/v1/sandboxes/{ref}/exec/{process_id}",
        "/v1/sandboxes/{ref}/urls/{port}",
    }
)


# --- requests that their owner is granted ---


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
    return {"to": (await _snapshot(org, params))[0]}


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
    "POST /v1/run/ag-ui": Scene(_of_ag_ui, query=f"agent={SLUG}"),
    "POST /v1/run/ai-sdk": Scene(_of_ai_sdk, query=f"agent={SLUG}"),
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

# --- references beside the path ---


@dataclass(frozen=True)
class Reference:
    """A field of queries and bodies that names a record: how an org comes by one.

    ``wraps`` puts it into the shape that the field has.
    """

    make: Make
    wraps: Callable[[str], Any] = field(default=lambda ref: ref)


async def _cursor(org: Org, _params: Params) -> list[str]:
    await _sandbox(org, {})
    await _sandbox(org, {})
    answer = await org.http.get("/v1/sandboxes?limit=1")
    return [answer.json()["meta"]["nextCursor"]]


async def _actor(org: Org, _params: Params) -> list[str]:
    return [(await org.ask("GET", "/v1/me"))["keyId"]]


def _listed(ref: str) -> list[str]:
    return [ref]


REFERENCES: Mapping[str, Reference] = {
    "actor": Reference(_actor),
    "agent": Reference(_agent),
    "agentSlug": Reference(_agent),
    "agents": Reference(_agent, _listed),
    "apiKeys": Reference(_api_key, _listed),
    "cursor": Reference(_cursor),
    "moveTo": Reference(_project),
    "project": Reference(_project),
    "projectId": Reference(_project),
    "resource": Reference(_sandbox),
    "sandboxId": Reference(_sandbox),
    "sandboxes": Reference(_sandbox, _listed),
    "secret": Reference(_provider_key),
    "secrets": Reference(_secret, _listed),
    "sshKeys": Reference(_ssh_key, _listed),
    "template": Reference(_template),
    "threadId": Reference(_thread),
    "to": Reference(_snapshot),
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
    "agents[].mcpServers[].secret": Reference(_secret, _of_server),
    "agents[].sandbox": Reference(_standing, _of_agent("sandbox")),
    "agents[].tools": Reference(_tool, _of_agent("tools")),
    "sandboxes[].secrets": Reference(_secret, _of_box("secrets")),
    "sandboxes[].template": Reference(_template, _of_box("template")),
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

# --- what is not the orgs' ---

WHOLE_MACHINE: Mapping[str, str] = {
    "GET /v1/disk": "the operator's: room on the machine's disks",
    "GET /v1/hosts": "the operator's: the machines and how full they are",
    "GET /v1/orgs/{org_id}/limits": "the operator's: what an org may have",
    "PATCH /v1/orgs/{org_id}/limits": "the operator's: sets what an org may have",
    "POST /v1/orgs": "the operator's: makes orgs",
    "GET /v1/people": "the operator's: everybody who has an account",
    "PATCH /v1/people/{user_id}": "the operator's: who else is one",
    "POST /v1/people/{user_id}/reset": "the operator's: lets somebody set another password",
    "DELETE /v1/people/{user_id}": "the operator's: closes an account",
    "POST /v1/prune": "the operator's: frees room on the machine",
}
MEASURED: Mapping[str, str] = {
    "GET /v1/usage": "added up as time goes by",
    "GET /v1/sandboxes/{ref}/stats": "measured anew for every answer",
    "GET /v1/sandboxes/{ref}/stats/history": "measured as time goes by",
}
# A key is refused, whatever it names; `flow/api/test_people` shows whose is whose.
OF_A_PERSON = frozenset(
    {
        "DELETE /v1/sessions",
        "DELETE /v1/sessions/{session_id}",
        "GET /v1/me/identities",
        "DELETE /v1/me/identities/{identity_id}",
        "GET /v1/sessions",
        "POST /v1/invitations/accept",
        "POST /v1/me/close",
        "POST /v1/me/password",
        "POST /v1/org/leave",
        "POST /v1/orgs/{org_id}/switch",
    }
)
NOT_OF_AN_ORG: Mapping[str, str] = {
    "GET /healthz": "needs no key and tells of no org",
    "GET /readyz": "needs no key and tells of no org",
    "GET /metrics": "opens to a token that is no org's key",
    "POST /v1/logins": "needs no key and tells of no org",
    "POST /v1/logins/finish": "needs no key and tells nothing but to who began the login",
}
