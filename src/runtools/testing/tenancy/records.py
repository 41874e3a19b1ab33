"""How an org comes by a record of each path: one with a new parameter needs a line in `PLACES`."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any

from runtools.testing.tenancy.operations import Params
from runtools.testing.tenancy.org import Org

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


async def of_ai_sdk(org: Org, params: Params) -> dict[str, Any]:
    """What a front end on the AI SDK asks of it."""
    said = (await work(org, params))["message"]
    parts = [{"type": "text", "text": said}]
    return {"id": "both-have-it", "messages": [{"id": "1", "role": "user", "parts": parts}]}


async def of_ag_ui(org: Org, params: Params) -> dict[str, Any]:
    """What one on AG-UI asks of it."""
    said = (await work(org, params))["message"]
    messages = [{"id": "1", "role": "user", "content": said}]
    return {"threadId": "both-have-it", "runId": "1", "messages": messages}


async def _chat(org: Org, params: Params) -> list[str]:
    body = {**await of_ai_sdk(org, params), "id": org.fresh()}
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
        # A process that is yet to begin is ended, too, whoever has chosen its name.
        "DELETE /v1/sandboxes/{ref}/processes/{process_id}",
        "/v1/run/ai-sdk/{chat}",
        "/v1/sandboxes/{ref}/exec/{process_id}",
        "/v1/sandboxes/{ref}/urls/{port}",
    }
)
