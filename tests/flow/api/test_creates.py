"""Every route that makes something: a repeat gets the same, another request a refusal, no secret twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, select, update

from runtools.platform.api.idempotency.store import requests
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.made_once import bare_app
from runtools.testing.tenancy.operations import Operation, Params, operations
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.outside import NOT_OF_AN_ORG
from runtools.testing.tenancy.records import PLACES
from runtools.testing.tenancy.scenes import SCENES, Scene

# What is in the first answer alone begins like this.
SHOWN_ONCE = ("rt_live_", "rt_test_", "rt_invite_", "rt_reset_", "rt_link_", "whsec_")
PREFIX = 14  # so much of a key is shown for ever
# Answered anew by who keeps it, with how it stands by now.
LIVES_ON = frozenset({"POST /v1/sandboxes/{ref}/processes"})
# Makes no record: what it shows is good for a while, and a repeat shows another one in its place.
MAKES_NONE = frozenset(
    {
        "POST /v1/members/{user_id}/reset",
        "POST /v1/people/{user_id}/reset",
        "POST /v1/sandboxes/{ref}/processes/{process_id}/terminal-ticket",
        "POST /v1/sandboxes/{ref}/urls/{port}/links",
    }
)


def _creates() -> list[Operation]:
    app = bare_app()
    paths = app.openapi()["paths"]
    return [
        one
        for one in operations(app)
        if one.path in paths
        and one.name not in NOT_OF_AN_ORG
        and "201" in paths[one.path].get(one.method.lower(), {}).get("responses", {})
    ]


async def _prepared(org: Org, operation: Operation) -> tuple[str, Any]:
    """The path with records of the org's, and a body that is granted."""
    params: Params = {}
    for name, place in operation.prefixes().items():
        params[name] = (await PLACES[place](org, params))[0]
    scene = SCENES.get(operation.name, Scene())
    if scene.ready is not None:
        await scene.ready(org, params)
    body = await scene.body(org, params) if callable(scene.body) else scene.body
    path = operation.path
    for name, ref in params.items():
        path = path.replace(f"{{{name}}}", ref)
    return path, (operation.example or {}) if body is None else body


def _forget(conn: Connection) -> None:
    """As if the process had been killed between what it did and noting the answer."""
    conn.execute(update(requests).values(status=None, data=None))


def _remembered(conn: Connection) -> str:
    return json.dumps([row.data for row in conn.execute(select(requests.c.data))])


def _is_shown_once(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    # A link bears it there.
    secret = value.rpartition("#")[2].rpartition("runtools-link=")[2]
    return secret.startswith(SHOWN_ONCE) and len(secret) > PREFIX


def _leaves(value: Any) -> Iterator[Any]:
    """What is in an answer, at whatever depth."""
    if not isinstance(value, dict):
        yield value
        return
    for one in value.values():
        yield from _leaves(one)


def _public(answer: httpx.Response) -> dict[str, Any]:
    text = answer.text
    for secret in filter(_is_shown_once, _leaves(answer.json()["data"])):
        text = text.replace(json.dumps(secret), "null")
    data: dict[str, Any] = json.loads(text)["data"]
    return data


def _which(answer: httpx.Response) -> Any:
    """Of which record it tells, however that stands by now."""
    data = answer.json()["data"]
    if "children" in data:
        return [child["id"] for child in data["children"]]
    return [data.get(name) for name in ("id", "slug", "version", "createdAt")]


async def _faults(org: Org, operation: Operation, key: str) -> list[str]:
    path, body = await _prepared(org, operation)
    db = org.world.platform.db

    async def ask(sent: Any) -> httpx.Response:
        return await org.http.post(path, json=sent, headers={"Idempotency-Key": key})

    first, again = await ask(body), await ask(body)
    if (first.status_code, again.status_code) != (201, 201):
        return [f"{operation.name}: {first.text[:300]} and then {again.text[:300]}"]
    found = []
    same = _which if operation.name in LIVES_ON else _public
    if operation.name not in MAKES_NONE and same(first) != same(again):
        found.append(f"{operation.name}: a repeat is {again.text[:300]}, not {first.text[:300]}")
    shown = list(filter(_is_shown_once, _leaves(first.json()["data"])))
    if any(secret in again.text for secret in shown):
        found.append(f"{operation.name}: a repeat shows the secret again")
    kept = await db.read(_remembered)
    if any(secret in kept for secret in shown):
        found.append(f"{operation.name}: the secret is kept in the answer")
    other = await ask({**body, "name": "another"})
    if other.status_code != 409 or other.json()["error"]["code"] != "idempotency_mismatch":
        found.append(f"{operation.name}: another request under the key is {other.text[:300]}")
    await db.write(_forget)
    redone = await ask(body)
    if operation.name not in MAKES_NONE and (
        redone.status_code != 201 or _which(redone) != _which(first)
    ):
        found.append(f"{operation.name}: after a crash it is {redone.text[:300]}, not {first.text}")
    return found


async def test_each_of_them(any_url: str, tmp_path: Path) -> None:
    made = api_world.world(Database(any_url), tmp_path, outbound_allow="127.0.0.0/8")
    async with made as world:
        org = Org(world, world.org, "amber", world.http)
        creates = _creates()
        assert len(creates) >= 15
        found: list[str] = []
        for n, operation in enumerate(creates):
            found += await _faults(org, operation, f"key-{n}")
        assert found == [], "\n".join(found)
