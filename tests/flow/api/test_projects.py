"""Projects: making, naming, taking away, moving things, and filters by them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from runtools.platform.api.deploys import store as deploys
from runtools.platform.api.projects import store
from runtools.platform.api.runs import store as runs
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.threads import store as threads
from runtools.platform.api.threads.tables import threads as threads_table
from runtools.platform.kit.db import Transaction
from runtools.testing.api_world import PATIENCE_SECONDS, World
from runtools.testing.run_stage import AGENT
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import deployed


async def make(http: httpx.AsyncClient, name: str, **body: Any) -> dict[str, Any]:
    answer = await http.post("/v1/projects", json={"name": name, **body})
    assert answer.status_code == 201, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def names(http: httpx.AsyncClient, path: str) -> list[str]:
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return sorted(one["name"] for one in answer.json()["data"])


def filled(project: dict[str, Any]) -> dict[str, int]:
    """What lies in a project."""
    return {kind: count for kind, count in project["contents"].items() if count}


async def key(world: World, name: str, **body: Any) -> dict[str, Any]:
    answer = await world.http.post("/v1/api-keys", json={"name": name, **body})
    assert answer.status_code == 201, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


class TestMaking:
    async def test_it_is_made_shown_and_changed(self, any_world: World) -> None:
        http = any_world.http
        made = await make(http, "web", color="#3366cc")
        assert made["id"].startswith("prj_")
        assert (made["isDefault"], filled(made)) == (False, {})
        assert (await http.get("/v1/projects/web")).json()["data"] == made
        changed = (await http.patch("/v1/projects/web", json={"name": "shop"})).json()["data"]
        assert changed == made | {"name": "shop"}
        plain = (await http.patch(f"/v1/projects/{made['id']}", json={"color": None})).json()[
            "data"
        ]
        assert plain == changed | {"color": None}
        assert await names(http, "/v1/projects") == ["default", "shop"]

    async def test_every_org_has_a_default_one_that_stays(self, any_world: World) -> None:
        async with await any_world.stranger() as other:
            for http in (any_world.http, other):
                (only,) = (await http.get("/v1/projects")).json()["data"]
                assert (only["name"], only["isDefault"]) == ("default", True)
                refused = await http.delete("/v1/projects/default")
                assert refused.json()["error"]["code"] == "conflict"
        await any_world.http.patch("/v1/projects/default", json={"name": "main"})
        box = await any_world.create()
        assert (
            box["projectId"]
            == (await any_world.http.get("/v1/me")).json()["data"]["defaultProjectId"]
        )

    async def test_names_are_unique_within_an_org(self, any_world: World) -> None:
        await make(any_world.http, "web")
        async with await any_world.stranger() as other:
            await make(other, "web")
        again = await any_world.http.post("/v1/projects", json={"name": "web"})
        assert again.json()["error"]["code"] == "name_taken"
        await make(any_world.http, "app")
        renamed = await any_world.http.patch("/v1/projects/app", json={"name": "web"})
        assert renamed.json()["error"]["code"] == "name_taken"
        assert await names(any_world.http, "/v1/projects") == ["app", "default", "web"]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"name": None},
            {"name": ""},
            {"name": 7},
            {"name": "Web"},
            {"name": "w\0b"},
            {"name": "w b"},
            {"name": "wеb"},  # noqa: RUF001 - the second letter is Cyrillic
            {"name": "a" * 64},
            {"name": "-a"},
            {"name": "a\n"},
            {"name": "web", "color": "red"},
            {"name": "web", "color": "#33 66"},
            {"name": "web", "colour": "#336699"},
        ],
    )
    async def test_bad_input_names_its_field(self, world: World, body: dict[str, Any]) -> None:
        answer = await world.http.post("/v1/projects", json=body)
        assert answer.status_code == 400
        (wrong,) = answer.json()["error"]["details"]["fields"]
        assert wrong["field"] == (list(body) or ["name"])[-1]
        assert await names(world.http, "/v1/projects") == ["default"]

    async def test_a_name_is_not_taken_away(self, world: World) -> None:
        await make(world.http, "web")
        answer = await world.http.patch("/v1/projects/web", json={"name": None})
        assert answer.status_code == 400


class TestFilters:
    async def test_lists_show_what_lies_in_one(self, any_world: World) -> None:
        http = any_world.http
        web = await make(http, "web")
        await any_world.create(name="here", projectId="web")
        await any_world.create(name="there")
        assert (await key(any_world, "k", projectId=web["id"]))["projectId"] == web["id"]
        default = (await http.get("/v1/projects/default")).json()["data"]
        assert (await key(any_world, "l"))["projectId"] == default["id"]
        for ref in ("web", web["id"]):
            assert await names(http, f"/v1/sandboxes?projectId={ref}") == ["here"]
            assert await names(http, f"/v1/api-keys?projectId={ref}") == ["k"]
        assert await names(http, "/v1/sandboxes?projectId=default") == ["there"]
        assert await names(http, "/v1/sandboxes") == ["here", "there"]
        shown = (await http.get("/v1/projects/web")).json()["data"]
        assert filled(shown) == {"sandboxes": 1, "apiKeys": 1}

    async def test_one_that_is_not_there_is_named(self, world: World) -> None:
        async with await world.stranger() as other:
            theirs = await make(other, "theirs")
        for ref in ("none", theirs["id"], "theirs"):
            for path in ("sandboxes", "api-keys"):
                answer = await world.http.get(f"/v1/{path}?projectId={ref}")
                assert answer.status_code == 404
                assert answer.json()["error"]["details"] == {"field": "projectId"}

    async def test_a_fork_lies_where_its_parent_does(self, world: World) -> None:
        web = await make(world.http, "web")
        await world.create(name="parent", projectId="web")
        forked = await world.http.post("/v1/sandboxes/parent/fork", json={})
        (child,) = forked.json()["data"]["children"]
        assert child["projectId"] == web["id"]


class TestMoving:
    async def test_many_at_once(self, any_world: World) -> None:
        http = any_world.http
        await make(http, "web")
        boxes = [await any_world.create(name=f"box-{n}") for n in range(3)]
        one = await key(any_world, "k")
        body = {"sandboxes": [boxes[0]["id"], "box-1"], "apiKeys": [one["id"]]}
        moved = await http.post("/v1/projects/web/move", json=body)
        assert filled(moved.json()["data"]) == {"sandboxes": 2, "apiKeys": 1}
        assert await names(http, "/v1/sandboxes?projectId=web") == ["box-0", "box-1"]

    @pytest.mark.parametrize("foreign", [False, True])
    async def test_one_that_is_not_there_moves_none(self, any_world: World, foreign: bool) -> None:
        http = any_world.http
        await make(http, "web")
        await any_world.create(name="box")
        missing = "key_none"
        if foreign:
            async with await any_world.stranger() as other:
                missing = (await other.get("/v1/api-keys")).json()["data"][0]["id"]
        body = {"sandboxes": ["box"], "apiKeys": [missing]}
        answer = await http.post("/v1/projects/web/move", json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["details"] == {"field": "apiKeys.0"}
        assert await names(http, "/v1/sandboxes?projectId=web") == []

    async def test_it_changes_no_right(self, world: World) -> None:
        await make(world.http, "web")
        await world.create(name="box")
        limited = await key(world, "k", scopes=["sandbox:read"])
        await world.http.post("/v1/projects/web/move", json={"apiKeys": [limited["id"]]})
        headers = {"Authorization": f"Bearer {limited['key']}"}
        seen = await world.http.get("/v1/sandboxes/box", headers=headers)
        assert seen.status_code == 200


class TestTurns:
    """On PostgreSQL rows are locked one by one: who comes in another order is refused after a second."""

    @pytest.mark.parametrize("how", ["move", "delete"])
    async def test_one_waits_for_a_run_that_is_being_taken(
        self, any_world: World, how: str
    ) -> None:
        http, db = any_world.http, any_world.platform.db
        org = Org(any_world, any_world.org, "amber", http)
        await make(http, "web")
        await make(http, "app")
        await deployed(org, agents=[AGENT])
        box = await any_world.create(name="box", projectId="app" if how == "delete" else None)
        body = {"agentSlug": AGENT["slug"], "message": "Do it.", "sandboxId": box["id"]}
        run = (await http.post("/v1/run?waitSeconds=0", json=body)).json()["data"]
        if how == "delete":  # with the run in it, whose agent stands elsewhere by now
            await db.write(_put, any_world.org, run, await project_id(http, "app"))
        held = threading.Event()

        def take(conn: Transaction) -> bool:
            assert threads.locked(conn, any_world.org, run["threadId"])
            held.set()
            until_somebody_waits(conn)
            assert sandboxes.locked(conn, box["id"])
            return runs.held(conn, run["id"]) is not None

        taking = asyncio.create_task(db.write(take))
        await asyncio.to_thread(held.wait, PATIENCE_SECONDS)
        if how == "move":
            wanted = {"sandboxes": [box["id"]], "agents": [AGENT["slug"]]}
            moving = http.post("/v1/projects/web/move", json=wanted)
        else:
            moving = http.delete("/v1/projects/app?moveTo=web")
        moved = await moving
        assert moved.status_code == 200, moved.text
        assert await taking
        web = await project_id(http, "web")
        assert (await http.get(f"/v1/runs/{run['id']}")).json()["data"]["projectId"] == web
        assert (await http.get(f"/v1/sandboxes/{box['id']}")).json()["data"]["projectId"] == web

    async def test_two_that_hold_a_project_come_after_one_another(self, any_world: World) -> None:
        db = any_world.platform.db
        await make(any_world.http, "web")
        web, both = await project_id(any_world.http, "web"), threading.Barrier(2)

        def move(conn: Transaction) -> None:
            assert store.held(conn, any_world.org, web)
            if not db.sqlite:  # there one transaction waits for the other anyway
                both.wait(PATIENCE_SECONDS)
            deploys.refuse_beside(conn, web)

        await asyncio.gather(db.write(move), db.write(move))


def until_somebody_waits(conn: Transaction) -> None:
    """For what this transaction holds; on SQLite others wait before they begin."""
    if conn.dialect.name == "sqlite":
        return
    ask = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while conn.scalar(ask) == 0:
        assert time.monotonic() < deadline


def _put(conn: Transaction, org_id: str, run: dict[str, Any], project: str) -> None:
    """A run and its thread are in a project."""
    record = runs.held(conn, run["id"])
    assert record is not None
    runs.change(conn, record, {"project_id": project})
    mine = (threads_table.c.org_id == org_id) & (threads_table.c.id == run["threadId"])
    conn.execute(update(threads_table).where(mine).values(project_id=project))


async def project_id(http: httpx.AsyncClient, name: str) -> str:
    """Its id."""
    return str((await http.get(f"/v1/projects/{name}")).json()["data"]["id"])


class TestDeleting:
    async def test_what_is_not_empty_stays(self, any_world: World) -> None:
        http = any_world.http
        await make(http, "web")
        await any_world.create(name="box", projectId="web")
        answer = await http.delete("/v1/projects/web")
        error = answer.json()["error"]
        assert (error["code"], error["details"]) == ("project_in_use", {"sandboxes": 1})
        assert await names(http, "/v1/projects") == ["default", "web"]

    async def test_its_things_go_where_it_is_said(self, any_world: World) -> None:
        http = any_world.http
        for name in ("web", "app"):
            await make(http, name)
        await any_world.create(name="box", projectId="web")
        await any_world.create(name="ended", projectId="web")
        await http.delete("/v1/sandboxes/ended")
        for target in ("web", "none"):
            refused = await http.delete(f"/v1/projects/web?moveTo={target}")
            assert refused.json()["error"]["details"] == {"field": "moveTo"}
        assert (await http.delete("/v1/projects/web?moveTo=app")).status_code == 200
        assert await names(http, "/v1/sandboxes?projectId=app") == ["box"]
        assert await names(http, "/v1/sandboxes?projectId=app&state=stopped") == ["ended"]
        assert (await http.get("/v1/projects/web")).status_code == 404

    async def test_what_has_ended_stays_on_record(self, any_world: World) -> None:
        http = any_world.http
        await make(http, "web")
        await any_world.create(name="ended", projectId="web")
        await http.delete("/v1/sandboxes/ended")
        assert (await http.delete("/v1/projects/web")).status_code == 200
        assert (await any_world.get("ended"))["projectId"] == (
            await http.get("/v1/projects/default")
        ).json()["data"]["id"]

    async def test_what_comes_in_meanwhile_has_a_project(self, any_world: World) -> None:
        http = any_world.http
        for n in range(5):
            await make(http, f"web-{n}")
            body = {"name": f"k{n}", "projectId": f"web-{n}"}
            await asyncio.gather(
                http.delete(f"/v1/projects/web-{n}?moveTo=default"),
                http.post("/v1/api-keys", json=body),
            )
        there = {one["id"] for one in (await http.get("/v1/projects")).json()["data"]}
        keys = (await http.get("/v1/api-keys")).json()["data"]
        assert {one["projectId"] for one in keys} <= there
