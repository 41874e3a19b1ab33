"""API keys: scopes, expiry, rotation."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from runtools.errors import Conflict
from runtools.platform.api.keys import store
from runtools.platform.api.keys.service import Rights, _replace
from runtools.platform.kit.clock import SystemClock
from runtools.testing.api_world import World, client, holds


async def make(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await http.post("/v1/api-keys", json={"name": "k", **body})


async def holder(world: World, *scopes: str, **body: object) -> httpx.AsyncClient:
    answer = await make(world.http, scopes=list(scopes), **body)
    assert answer.status_code == 201, answer.text
    return client(world.url, answer.json()["data"]["key"])


class TestScopes:
    async def test_a_key_does_what_it_may_and_no_more(self, world: World) -> None:
        made = await world.create(name="box")
        async with await holder(world, "sandbox:read", "files:*") as reader:
            path = f"/v1/sandboxes/{made['id']}"
            assert (await reader.get(path)).status_code == 200
            assert (await reader.get("/v1/me")).json()["data"]["scopes"] == [
                "files:*",
                "sandbox:read",
            ]
            put = await reader.put(f"{path}/files?path=/workspace/a", content=b"x")
            assert put.status_code == 200
            for method, where, needed in (
                ("POST", "/v1/sandboxes", "sandbox:create"),
                ("DELETE", path, "sandbox:write"),
                ("POST", f"{path}/exec", "sandbox:write"),
                ("POST", f"{path}/fork", "sandbox:create"),
                ("GET", "/v1/secrets", "secret:read"),
                ("GET", "/v1/audit", "audit:read"),
                ("GET", "/v1/api-keys", "api-key:read"),
                ("POST", "/v1/prune", "platform:write"),
            ):
                answer = await reader.request(method, where, json={} if method == "POST" else None)
                assert answer.status_code == 403, (method, where)
                assert answer.json()["error"]["details"]["needed"] == needed
        assert (await world.get(made["id"]))["state"] == "running"

    async def test_a_terminal_is_written_to(self, world: World) -> None:
        made = await world.create()
        path = f"/v1/sandboxes/{made['id']}/processes"
        body = {"command": "cat", "terminal": {"rows": 24, "columns": 80}}
        process = (await world.http.post(path, json=body)).json()["data"]["id"]
        answer = await make(world.http, scopes=["sandbox:read"])
        headers = {"Authorization": f"Bearer {answer.json()['data']['key']}"}
        url = f"{world.url.replace('http', 'ws')}{path}/{process}/terminal"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=headers, proxy=None)
        assert refused.value.response.status_code == 403

    async def test_what_is_refused_is_in_the_audit_log(self, world: World) -> None:
        async with await holder(world, "sandbox:read") as reader:
            await reader.post("/v1/sandboxes", json={})
            me = (await reader.get("/v1/me")).json()["data"]["keyId"]
        (line,) = (await world.http.get(f"/v1/audit?actor={me}")).json()["data"]
        assert (line["action"], line["status"]) == ("sandboxes.create", 403)
        assert line["error"] == "forbidden"

    async def test_no_key_makes_or_takes_one_that_may_do_more(self, world: World) -> None:
        async with await holder(world, "api-key:*", "sandbox:read") as limited:
            for scopes in ([], ["*"], ["sandbox:*"], ["secret:read"]):
                assert (await make(limited, scopes=scopes)).status_code == 403, scopes
            assert (await make(limited, scopes=["sandbox:read"])).status_code == 201
            strong = (await make(world.http)).json()["data"]["id"]
            assert (await limited.post(f"/v1/api-keys/{strong}/rotate")).status_code == 403
            assert (await limited.delete(f"/v1/api-keys/{strong}")).status_code == 403
            assert (await limited.post("/v1/api-keys/key_none/rotate")).status_code == 404

    @pytest.mark.parametrize(
        "body",
        [
            {"scopes": ["sandbox:fly"]},
            {"scopes": ["sandboxes:read"]},
            {"scopes": "sandbox:read"},
            {"scopes": [""]},
            {"expiresIn": "30"},
            {"expiresIn": "0d"},
            {"expiresIn": "-1d"},
            {"expiresIn": "99999d"},
            {"expiresIn": "9999y"},
            {"expiresIn": "3651d"},
            {"isTest": "perhaps"},
        ],
    )
    async def test_bad_input_names_its_field(self, world: World, body: dict) -> None:
        answer = await make(world.http, **body)
        assert answer.status_code == 400
        assert next(iter(body)) in answer.text

    async def test_a_project_of_nobody(self, world: World) -> None:
        assert (await make(world.http, projectId="prj_none")).status_code == 404


class Later(SystemClock):
    """A clock that can be put forward."""

    ahead = timedelta()

    def now(self):
        return super().now() + self.ahead


class TestAtRest:
    async def test_a_key_is_kept_as_a_digest_alone(self, world: World, tmp_path: Path) -> None:
        first = (await make(world.http, isTest=True)).json()["data"]
        path = f"/v1/api-keys/{first['id']}/rotate"
        again = (await world.http.post(path, headers={"Idempotency-Key": "r"})).json()["data"]
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert [file for file in files if file.name == "runtools.db"]
        for secret in (world.key, first["key"], again["key"]):
            assert [file for file in files if secret.encode() in file.read_bytes()] == []
        digests = [hashlib.sha256(one["key"].encode()).hexdigest() for one in (first, again)]
        kept = await world.platform.db.read(store.page, world.org, None, None, 100)
        assert set(digests) <= {one.digest for one in kept}


class TestExpiry:
    async def test_an_expired_key_opens_nothing(self, world: World) -> None:
        async with await holder(world, expiresIn="1d") as http:
            assert (await http.get("/v1/me")).status_code == 200
            clock = Later()
            clock.ahead = timedelta(days=1, seconds=1)
            world.platform.door._clock = clock
            assert (await http.get("/v1/me")).status_code == 401
            assert (await world.http.get("/v1/me")).status_code == 200

    async def test_a_key_that_ends_makes_none_that_lasts(self, any_world: World) -> None:
        lasting = (await make(any_world.http)).json()["data"]["id"]
        async with await holder(any_world, expiresIn="10d") as http:
            for body in ({}, {"expiresIn": "11d"}, {"expiresIn": "1y"}):
                answer = await make(http, **body)
                assert answer.status_code == 403, body
                assert "outlive" in answer.json()["error"]["message"]
            assert (await http.post(f"/v1/api-keys/{lasting}/rotate")).status_code == 403
            assert (await make(http, expiresIn="9d")).status_code == 201
            mine = (await http.get("/v1/me")).json()["data"]["keyId"]
            assert (await http.post(f"/v1/api-keys/{mine}/rotate")).status_code == 201


class TestRotation:
    async def test_the_new_one_takes_the_place_of_the_old(self, world: World) -> None:
        made = await make(world.http, scopes=["sandbox:read"], isTest=True, expiresIn="30d")
        old = made.json()["data"]
        assert old["key"].startswith("rt_test_")
        headers = {"Idempotency-Key": "rotate-once"}
        path = f"/v1/api-keys/{old['id']}/rotate"
        new = (await world.http.post(path, headers=headers)).json()["data"]
        assert new["key"].startswith("rt_test_")
        assert new["key"] != old["key"]
        for same in ("name", "scopes", "expiresAt", "projectId"):
            assert new[same] == old[same]
        again = (await world.http.post(path, headers=headers)).json()["data"]
        assert (again["id"], again["key"]) == (new["id"], None)
        async with client(world.url, old["key"]) as http:

            async def closed() -> bool:
                return (await http.get("/v1/me")).status_code == 401

            await holds(closed)
        async with client(world.url, new["key"]) as http:
            assert (await http.get("/v1/me")).status_code == 200
        assert (await world.http.post(path)).status_code == 409

    async def test_one_that_has_ended_gives_way_to_one_that_lasts(self, any_world: World) -> None:
        """It would open nothing if it ended with it."""
        world, clock = any_world, Later()
        old = (await make(world.http, expiresIn="1d")).json()["data"]
        path = f"/v1/api-keys/{old['id']}/rotate"
        world.platform.keys._clock = world.platform.clock = clock
        clock.ahead = timedelta(days=1, seconds=1)
        answer = await world.http.post(path)
        assert answer.status_code == 409
        assert "--expires-in" in answer.json()["error"]["hint"]
        shown = {one["id"]: one for one in (await world.http.get("/v1/api-keys")).json()["data"]}
        assert shown[old["id"]]["revokedAt"] is None
        for wrong in ("0d", "9999y", "soon"):
            assert (await world.http.post(path, json={"expiresIn": wrong})).status_code == 400
        new = (await world.http.post(path, json={"expiresIn": "7d"})).json()["data"]
        left = datetime.fromisoformat(new["expiresAt"]) - clock.now()
        assert timedelta(days=6) < left <= timedelta(days=7)
        async with client(world.url, new["key"]) as http:
            assert (await http.get("/v1/me")).status_code == 200
            for longer in ("8d", "1y"):
                mine = f"/v1/api-keys/{new['id']}/rotate"
                assert (await http.post(mine, json={"expiresIn": longer})).status_code == 403

    async def test_of_many_at_once_one_gets_a_new_key(self, any_world: World) -> None:
        old = (await make(any_world.http, name="raced")).json()["data"]["id"]
        path = f"/v1/api-keys/{old}/rotate"
        answers = await asyncio.gather(*(any_world.http.post(path) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]
        keys = (await any_world.http.get("/v1/api-keys")).json()["data"]
        living = [key for key in keys if key["name"] == "raced" and key["revokedAt"] is None]
        assert len(living) == 1

    async def test_what_is_revoked_meanwhile_hands_nothing_on(self, any_world: World) -> None:
        made = (await make(any_world.http, name="raced")).json()["data"]["id"]
        keys, org = any_world.platform.keys, any_world.org
        old = await any_world.platform.db.read(store.find, org, made)
        assert old is not None
        await keys.revoke(org, made)
        fresh, _ = keys._fresh(org, "raced", "opn_late", Rights())
        with pytest.raises(Conflict):
            await any_world.platform.db.write(_replace, old, fresh, SystemClock().now())
        there = await any_world.platform.db.read(store.page, org, None, None, 100)
        assert all(key.revoked_at for key in there if key.name == "raced")
