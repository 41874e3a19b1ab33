"""What an org may have at once: set by the operator, kept whoever asks, however many at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.flow.api.test_events import events
from websockets.asyncio.client import connect

from runtools.platform.core.states import State
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World, client
from runtools.testing.made_once import sqlite_url

SIZE = {"vcpus": 1, "memoryMb": 256, "diskMb": 512}


async def allow(world: World, **limits: Any) -> dict[str, Any]:
    answer = await world.http.patch(f"/v1/orgs/{world.org}/limits", json=limits)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def used(world: World) -> dict[str, int]:
    found: dict[str, int] = (await world.http.get("/v1/limits")).json()["data"]["used"]
    return found


def refused(answer: httpx.Response) -> dict[str, Any]:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "quota_exceeded"), answer.text
    assert str(error["details"]["max"]) in error["message"]
    assert "runtools org limits" in error["hint"]
    details: dict[str, Any] = error["details"]
    return details


class TestSetting:
    async def test_they_are_shown_with_what_is_used(self, any_world: World) -> None:
        shown = (await any_world.http.get("/v1/limits")).json()["data"]
        names = (
            "sandboxes",
            "vcpus",
            "memoryMb",
            "diskMb",
            "snapshots",
            "agentTokens",
            "agentCents",
        )
        nothing = dict.fromkeys(names, 0)
        assert shown == {"orgId": any_world.org, "limits": nothing, "used": nothing}
        await any_world.create(**SIZE)
        await allow(any_world, sandboxes=3, diskMb=9000)
        seen = await allow(any_world, snapshots=2)
        assert seen["limits"] == nothing | {"sandboxes": 3, "diskMb": 9000, "snapshots": 2}
        assert seen["used"] == nothing | {"sandboxes": 1} | SIZE
        seen = await allow(any_world, sandboxes="default", diskMb=0)
        assert seen["limits"] == nothing | {"snapshots": 2}

    async def test_the_settings_hold_where_nothing_is_said(self, tmp_path: Path) -> None:
        db = Database(sqlite_url(tmp_path))
        async with api_world.world(db, tmp_path, limit_sandboxes=1) as world:
            await world.create()
            assert refused(await world.http.post("/v1/sandboxes", json={}))["max"] == 1
            await allow(world, sandboxes=0)
            await world.create()
            await allow(world, sandboxes="default")
            refused(await world.http.post("/v1/sandboxes", json={}))

    async def test_an_org_does_not_set_its_own(self, world: World) -> None:
        made = await world.http.post("/v1/api-keys", json={"name": "k", "scopes": ["*"]})
        async with client(world.url, made.json()["data"]["key"]) as admin:
            for method in ("PATCH", "GET"):
                answer = await admin.request(method, f"/v1/orgs/{world.org}/limits", json={})
                assert answer.status_code == 403
            assert (await admin.get("/v1/limits")).status_code == 200

    async def test_an_org_that_is_not_there(self, world: World) -> None:
        assert (await world.http.get("/v1/orgs/org_none/limits")).status_code == 404
        answer = await world.http.patch("/v1/orgs/org_none/limits", json={"vcpus": 1})
        assert answer.status_code == 404

    @pytest.mark.parametrize(
        "body",
        [{"sandboxes": -1}, {"vcpus": "many"}, {"memoryMb": 1.5}, {"diskMb": 10**10}, {"disk": 1}],
    )
    async def test_bad_input_names_its_field(self, world: World, body: dict[str, Any]) -> None:
        answer = await world.http.patch(f"/v1/orgs/{world.org}/limits", json=body)
        assert answer.status_code == 400
        field = answer.json()["error"]["details"]["fields"][0]["field"]
        assert field.split(".")[0] == next(iter(body))


class TestKeeping:
    @pytest.mark.parametrize(
        ("limit", "most", "taken"),
        [("sandboxes", 2, 1), ("vcpus", 3, 1), ("memoryMb", 700, 256), ("diskMb", 1100, 512)],
    )
    async def test_fifty_at_once_never_exceed(
        self, any_world: World, limit: str, most: int, taken: int
    ) -> None:
        await allow(any_world, **{limit: most})
        body = SIZE | {"waitForReady": False}
        answers = await asyncio.gather(
            *(any_world.http.post("/v1/sandboxes", json=body) for _ in range(50))
        )
        fit = most // taken
        assert Counter(a.status_code for a in answers) == {201: fit, 409: 50 - fit}
        for answer in answers:
            if answer.status_code == 409:
                details = refused(answer)
                assert details["used"] + details["asked"] > details["max"] == most
        assert (await used(any_world))[limit] == fit * taken

    async def test_another_org_has_its_own(self, any_world: World) -> None:
        await allow(any_world, sandboxes=1)
        await any_world.create()
        async with await any_world.stranger() as other:
            answer = await other.post("/v1/sandboxes", json={"template": "none"})
            assert answer.status_code == 404
            assert (await other.get("/v1/limits")).json()["data"]["used"]["sandboxes"] == 0

    async def test_a_refused_one_leaves_nothing(self, any_world: World) -> None:
        await allow(any_world, sandboxes=1)
        await any_world.create(name="one")
        headers = {"Idempotency-Key": "k"}
        again = {"json": {"name": "two"}, "headers": headers}
        refused(await any_world.http.post("/v1/sandboxes", **again))
        assert [call for call in any_world.host.calls if "create" in call[0]][1:] == []
        await any_world.http.delete("/v1/sandboxes/one")
        assert (await any_world.http.post("/v1/sandboxes", **again)).status_code == 201

    async def test_children_come_all_or_none(self, any_world: World) -> None:
        await any_world.create(name="parent", **SIZE)
        await allow(any_world, sandboxes=4)
        path = "/v1/sandboxes/parent/fork"
        details = refused(await any_world.http.post(path, json={"count": 4}))
        assert details == {"limit": "sandboxes", "max": 4, "used": 1, "asked": 4}
        assert (await used(any_world))["sandboxes"] == 1
        answers = await asyncio.gather(
            *(any_world.http.post(path, json={"count": 2}) for _ in range(5))
        )
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 4
        assert (await used(any_world))["sandboxes"] == 3

    async def test_what_sleeps_takes_disk_alone(self, any_world: World) -> None:
        await allow(any_world, sandboxes=1, diskMb=1024)
        await any_world.create(name="one", **SIZE)
        await any_world.http.post("/v1/sandboxes/one/pause")
        await any_world.create(name="two", **SIZE)
        assert await used(any_world) == {
            "sandboxes": 1,
            "vcpus": 1,
            "memoryMb": 256,
            "diskMb": 1024,
            "snapshots": 0,
            "agentTokens": 0,
            "agentCents": 0,
        }
        await any_world.http.post("/v1/sandboxes/two/pause")
        assert refused(await any_world.http.post("/v1/sandboxes", json=SIZE))["limit"] == "diskMb"

    async def test_waking_counts_as_running(self, any_world: World) -> None:
        http = any_world.http
        await any_world.create(name="one", **SIZE)
        await http.post("/v1/sandboxes/one/pause")
        await any_world.create(name="two", **SIZE)
        await allow(any_world, sandboxes=1)
        command = {"command": "true"}
        for path, body in (
            ("resume", None),
            ("exec", command),
            ("processes", command),
            ("files/mkdir", {"path": "/a"}),
        ):
            answer = await http.post(f"/v1/sandboxes/one/{path}", json=body)
            assert refused(answer)["limit"] == "sandboxes", path
        refused(await http.get("/v1/sandboxes/one/files?path=/etc/hosts"))
        for path in ("", "/stats", "/why", "/egress", "/console"):
            assert (await http.get(f"/v1/sandboxes/one{path}")).status_code == 200
        narrowed = await http.patch("/v1/sandboxes/one/egress", json={"internet": False})
        assert narrowed.status_code == 200
        assert (await any_world.get("one"))["state"] == "paused"
        await http.post("/v1/sandboxes/two/pause")
        ran = await http.post("/v1/sandboxes/one/exec", json=command)
        assert ran.json()["data"]["exitCode"] == 0
        assert (await any_world.get("one"))["state"] == "running"
        refused(await http.post("/v1/sandboxes/two/resume"))

    async def test_one_that_waits_for_room_on_its_host_counts_as_running(
        self, any_world: World
    ) -> None:
        http, host = any_world.http, any_world.host
        one = (await any_world.create(name="one", **SIZE))["id"]
        await http.post("/v1/sandboxes/one/pause")
        await allow(any_world, sandboxes=1)
        await host.crowd_out(one)
        answer = await http.post("/v1/sandboxes/one/resume")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "waits_for_room")
        assert (await any_world.get(one))["operation"] == "queued"
        assert refused(await http.post("/v1/sandboxes", json=SIZE))["limit"] == "sandboxes"
        await host._report(host.machines[one], State.PAUSED, None, "request", "key_test")
        await any_world.becomes(one, operation=None)
        await any_world.create(name="two", **SIZE)

    async def test_a_terminal_wakes_none_beyond_them(self, any_world: World) -> None:
        http = any_world.http
        one = await any_world.create(name="one", **SIZE)
        started = await http.post("/v1/sandboxes/one/processes", json={"command": ["cat"]})
        process = started.json()["data"]["id"]
        await http.post("/v1/sandboxes/one/pause")
        await any_world.create(name="two", **SIZE)
        await allow(any_world, sandboxes=1)
        url = any_world.url.replace("http", "ws")
        path = f"{url}/v1/sandboxes/{one['id']}/processes/{process}/terminal"
        named = {"Authorization": f"Bearer {any_world.key}"}
        async with connect(path, proxy=None, additional_headers=named) as viewer:
            assert json.loads(await viewer.recv())["type"] == "start"
            for message in (b"x", '{"type": "signal", "signal": 9}', '{"type": "close-input"}'):
                await viewer.send(message)
                told = json.loads(await viewer.recv())
                assert (told["type"], told["error"]["code"]) == ("refused", "quota_exceeded")
            assert (await any_world.get("one"))["state"] == "paused"
            await http.post("/v1/sandboxes/two/pause")
            await viewer.send(b"x")
            heard: list[str | bytes] = []
            while not any(isinstance(one, str) and '"taken"' in one for one in heard):
                heard.append(await viewer.recv())
        assert (await any_world.get("one"))["state"] == "running"

    async def test_what_wakes_nothing_is_refused_nothing(self, any_world: World) -> None:
        http = any_world.http
        await any_world.create(name="one", **SIZE)
        body = {"command": ["echo", "told"]}
        started = await http.post("/v1/sandboxes/one/processes", json=body)
        process = f"/v1/sandboxes/one/processes/{started.json()['data']['id']}"
        ended = (await http.get(f"{process}?waitMs=60000")).json()["data"]
        assert ended["output"]["end"] == 5
        watch = "/v1/sandboxes/one/files/watch?path=/workspace"
        async with http.stream("GET", watch) as stream:
            number, _, change = await anext(events(stream))
        assert change["kind"] == "armed"
        await http.post("/v1/sandboxes/one/pause")
        await any_world.create(name="two", **SIZE)
        for limits in ({"sandboxes": 1}, {"sandboxes": 2}):  # used up, and with room: it sleeps on
            await allow(any_world, **limits)
            at_end = await http.get(f"{process}/output?offset=5")
            assert (at_end.status_code, at_end.content) == (200, b"")
            async with http.stream("GET", f"{watch}&after={number}") as stream:
                assert stream.status_code == 200
                assert (await anext(events(stream)))[2]["kind"] == "armed"
            assert (await any_world.get("one"))["state"] == "paused"
        await allow(any_world, sandboxes=1)
        refused(await http.get(f"{process}/output?offset=4"))
        refused(await http.get(watch))
        await allow(any_world, sandboxes=2)
        assert (await http.get(f"{process}/output?offset=4")).content == b"\n"
        assert (await any_world.get("one"))["state"] == "running"

    async def test_many_that_wake_at_once(self, any_world: World) -> None:
        http = any_world.http
        for n in range(6):
            await any_world.create(name=f"box-{n}", **SIZE)
            await http.post(f"/v1/sandboxes/box-{n}/pause")
        await allow(any_world, sandboxes=2)
        answers = await asyncio.gather(
            *(http.post(f"/v1/sandboxes/box-{n}/resume") for n in range(6)),
            *(http.post(f"/v1/sandboxes/box-{n}/exec", json={"command": "true"}) for n in range(6)),
        )
        assert {answer.status_code for answer in answers} == {200, 409}
        assert (await used(any_world))["sandboxes"] == 2
        shown = (await http.get("/v1/sandboxes?state=running")).json()["data"]
        assert len(shown) == 2

    async def test_snapshots(self, any_world: World) -> None:
        http = any_world.http
        await any_world.create(name="one")
        await allow(any_world, snapshots=2)
        path = "/v1/sandboxes/one/snapshots"
        answers = await asyncio.gather(*(http.post(path, json={}) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [201] * 2 + [409] * 4
        kept = (await http.get(path)).json()["data"]
        assert len(kept) == (await used(any_world))["snapshots"] == 2
        await http.delete(f"{path}/{kept[0]['id']}")
        assert (await http.post(path, json={})).status_code == 201
        back = await http.post("/v1/sandboxes/one/rollback", json={"to": kept[1]["id"]})
        assert back.status_code == 200

    async def test_recovery_is_a_birth(self, any_world: World) -> None:
        await any_world.create(name="one")
        ended = await any_world.get("one")
        await any_world.host.die(ended["id"], "for the test")
        await any_world.becomes(ended["id"], state="stopped")
        await allow(any_world, sandboxes=1)
        await any_world.create(name="two")
        refused(await any_world.http.post(f"/v1/sandboxes/{ended['id']}/recover", json={}))

    async def test_a_lowered_limit_ends_nothing(self, any_world: World) -> None:
        for _ in range(3):
            await any_world.create()
        seen = await allow(any_world, sandboxes=1)
        assert seen["used"]["sandboxes"] == 3
        one = (await any_world.http.get("/v1/sandboxes")).json()["data"][0]["id"]
        assert (await any_world.http.post(f"/v1/sandboxes/{one}/resume")).status_code == 200
        refused(await any_world.http.post("/v1/sandboxes", json={}))
