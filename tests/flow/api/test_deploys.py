"""Deploys through the API: the plan, what is carried out, and what stands afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, select, update

from runtools.errors import CapacityExhausted, SandboxPaused, Unavailable
from runtools.platform.api.definitions import service as definitions_service
from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.definitions.tables import definition_versions
from runtools.platform.api.deploys import boxes, checks, setup, store, work
from runtools.platform.core.states import State
from runtools.testing.api_world import World, holds

CLAUDE = {"slug": "hello", "name": "Hello", "model": "claude-haiku"}
SECRET = "a-value-that-must-not-leak"


def agent(slug: str = "hello", **more: Any) -> dict[str, Any]:
    return {"slug": slug, "name": "Hello", "model": "demo", **more}


def box(slug: str = "dev", **more: Any) -> dict[str, Any]:
    return {"slug": slug, **more}


def tool(name: str = "count", text: str = "code", **more: Any) -> dict[str, Any]:
    action = {"description": "Counts.", "parameters": {"type": "object"}}
    source = {
        "entry": "tools/count.py",
        "files": {"tools/count.py": text},
        "digest": hashlib.sha256(text.encode()).hexdigest(),
    }
    return {"name": name, "actions": {"count": action}, "source": source, **more}


def taking(what: dict[str, Any]) -> dict[str, Any]:
    """An action with one parameter."""
    parameters = {"type": "object", "properties": {"n": what}}
    return {"description": "Asks.", "parameters": parameters}


def body(*, project: str = "shop", **more: Any) -> dict[str, Any]:
    return {"project": project, **more}


async def plan(world: World, wanted: dict[str, Any]) -> dict[str, Any]:
    answer = await world.http.post("/v1/deploys/plan", json=wanted)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def begin(world: World, wanted: dict[str, Any], **more: Any) -> httpx.Response:
    shown = await plan(world, wanted)
    return await world.http.post("/v1/deploys", json={**wanted, "plan": shown["digest"], **more})


async def ended(world: World, deploy_id: str) -> dict[str, Any]:
    data: dict[str, Any] = {"state": "running"}
    while data["state"] == "running":
        answer = await world.http.get(f"/v1/deploys/{deploy_id}?waitSeconds=20&done=1000")
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
    return data


async def deploy(world: World, wanted: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await begin(world, wanted, **more)
    assert answer.status_code == 201, answer.text
    return await ended(world, answer.json()["data"]["id"])


async def done(world: World, wanted: dict[str, Any], **more: Any) -> dict[str, Any]:
    data = await deploy(world, wanted, **more)
    assert data["state"] == "done", data["error"]
    return data


def told(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["action"], one["kind"], one["slug"]) for one in data["changes"]]


async def get(world: World, path: str) -> Any:
    answer = await world.http.get(f"/v1{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def stands(world: World, slug: str = "dev") -> str:
    return str((await get(world, f"/standing-sandboxes/{slug}"))["sandboxId"])


async def files_of(world: World, sandbox: str) -> list[str]:
    listing = await get(world, f"/sandboxes/{sandbox}/files/list?path=/workspace")
    return sorted(entry["path"].rpartition("/")[2] for entry in listing["entries"])


ALL = body(
    tools=[tool()],
    sandboxes=[box(setup=["echo made >> made"])],
    agents=[agent(tools=["count", "bash"], sandbox="dev")],
)


async def _nothing_lives(world: World) -> bool:
    return not await get(world, "/sandboxes")


async def _all_run(world: World) -> bool:
    found = await get(world, "/sandboxes")
    return bool(found) and all(one["state"] == "running" for one in found)


class TestDeploy:
    async def test_all_of_it_and_again_nothing(self, any_world: World) -> None:
        world = any_world
        shown = await plan(world, ALL)
        assert (shown["project"], shown["makesProject"]) == ("shop", True)
        assert told(shown) == [
            ("create", "tool", "count"),
            ("create", "sandbox", "dev"),
            ("create", "agent", "hello"),
        ]
        commit = {"id": "a" * 40, "dirty": True}
        data = await done(world, ALL, commit=commit)
        assert (data["done"], data["commit"]) == (3, commit)
        me = await get(world, "/me")
        assert data["actor"] == me["keyId"]
        again = await plan(world, ALL)
        assert (again["changes"], again["makesProject"]) == ([], False)
        (version,) = await get(world, "/agents/hello/versions")
        assert (version["deployId"], version["commit"], version["actor"]) == (
            data["id"],
            commit,
            me["keyId"],
        )
        sandbox = await world.get("shop-dev")
        assert (sandbox["id"], sandbox["state"]) == (await stands(world), "running")
        assert await files_of(world, "shop-dev") == ["made"]
        (kept,) = await get(world, "/sandboxes/shop-dev/snapshots")
        assert kept["name"] == "setup"

    async def test_every_deploy_makes_a_version_and_a_rollback_is_seen_by_the_next(
        self, any_world: World
    ) -> None:
        world = any_world
        for prompt in ("one", "two", "three"):
            await done(world, body(agents=[agent(systemPrompt=prompt)]))
        versions = await get(world, "/agents/hello/versions")
        assert [(one["version"], one["current"]) for one in versions] == [
            (3, True),
            (2, False),
            (1, False),
        ]
        before = await get(world, "/agents/hello")
        answer = await world.http.post("/v1/agents/hello/rollback", json={"version": 1})
        after = answer.json()["data"]
        assert (after["version"], after["latestVersion"]) == (1, 3)
        assert after["definition"]["systemPrompt"] == "one"
        assert after["versionId"] == versions[2]["id"] != before["versionId"]
        shown = await plan(world, body(agents=[agent(systemPrompt="three")]))
        (change,) = shown["changes"]
        assert [(f["field"], f["old"], f["new"]) for f in change["fields"]] == [
            ("systemPrompt", "one", "three")
        ]
        await done(world, body(agents=[agent(systemPrompt="three")]))
        assert (await get(world, "/agents/hello"))["version"] == 4

    async def test_a_rollback_without_a_number_goes_one_back(self, world: World) -> None:
        for prompt in ("one", "two"):
            await done(world, body(agents=[agent(systemPrompt=prompt)]))
        answer = await world.http.post("/v1/agents/hello/rollback")
        assert answer.json()["data"]["version"] == 1
        answer = await world.http.post("/v1/agents/hello/rollback")
        assert answer.status_code == 404

    async def test_none_brings_back_an_agent_that_names_what_is_gone(self, world: World) -> None:
        await done(world, body(tools=[tool()], agents=[agent(tools=["count"])]))
        await done(world, body(agents=[agent()], prune=True))
        answer = await world.http.post("/v1/agents/hello/rollback", json={"version": 1})
        assert answer.status_code == 409
        assert answer.json()["error"]["details"]["named"] == ["tool count"]
        assert (await get(world, "/agents/hello"))["version"] == 2
        await done(world, body(tools=[tool()], agents=[agent()]))
        answer = await world.http.post("/v1/agents/hello/rollback", json={"version": 1})
        assert answer.json()["data"]["version"] == 1

    async def test_a_plan_that_is_stale_is_not_carried_out(self, any_world: World) -> None:
        world = any_world
        wanted = body(agents=[agent(systemPrompt="mine")])
        shown = await plan(world, wanted)
        await done(world, body(agents=[agent(systemPrompt="theirs")]))
        answer = await world.http.post("/v1/deploys", json={**wanted, "plan": shown["digest"]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "plan_stale")
        assert (await get(world, "/agents/hello"))["definition"]["systemPrompt"] == "theirs"

    async def test_what_an_agent_names_is_there_when_it_begins(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It goes after the plan has been looked at once more, and before the deploy is written."""
        await done(world, body(tools=[tool()]))
        wanted = body(tools=[tool()], agents=[agent(tools=["count"])])
        shown = await plan(world, wanted)
        look = checks.check_sandboxes

        async def late(*given: Any) -> None:
            await look(*given)
            assert (await world.http.delete("/v1/tools/count")).status_code == 200

        monkeypatch.setattr(checks, "check_sandboxes", late)
        only = {**wanted, "tools": [], "only": ["agent"], "plan": shown["digest"]}
        answer = await world.http.post("/v1/deploys", json=only)
        assert answer.status_code == 400, answer.text
        assert "there is no tool" in answer.json()["error"]["message"]
        assert await get(world, "/agents") == []

    async def test_a_database_that_is_away_for_a_moment_fails_none(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(work, "_PAUSE_SECONDS", 0.01)
        put, away = definitions.put, [Unavailable("away"), Unavailable("away")]

        def sometimes(*given: Any) -> None:
            if away:
                raise away.pop()
            put(*given)

        monkeypatch.setattr(definitions, "put", sometimes)
        data = await done(world, ALL)
        assert (data["done"], away) == (3, [])

    async def test_two_at_once_do_not_mix(self, any_world: World) -> None:
        world = any_world
        wanted = body(sandboxes=[box(setup=["until [ -e go ]; do sleep 0.02; done"])])
        first = await begin(world, wanted)
        assert first.status_code == 201
        second = await begin(world, body(agents=[agent()]))
        assert (second.status_code, second.json()["error"]["code"]) == (409, "deploy_running")
        other = await begin(world, body(project="other", agents=[agent()]))
        assert other.status_code == 201  # another project is nobody's business
        await self._let_go(world)
        assert (await ended(world, first.json()["data"]["id"]))["state"] == "done"
        await done(world, body(agents=[agent()]))

    async def test_several_begun_in_the_same_moment(self, any_world: World) -> None:
        world = any_world
        await done(world, body(agents=[agent()]))
        bodies = [body(agents=[agent(systemPrompt=str(n))]) for n in range(6)]
        plans = [await plan(world, one) for one in bodies]
        answers = await asyncio.gather(
            *(
                world.http.post("/v1/deploys", json={**one, "plan": shown["digest"]})
                for one, shown in zip(bodies, plans, strict=True)
            )
        )
        won = [one for one in answers if one.status_code == 201]
        lost = {one.json()["error"]["code"] for one in answers if one.status_code != 201}
        assert len(won) == 1
        assert lost <= {"deploy_running", "plan_stale"}
        await ended(world, won[0].json()["data"]["id"])
        assert len(await get(world, "/agents/hello/versions")) == 2

    async def _let_go(self, world: World) -> None:
        async def gone() -> bool:
            for machine in world.host.machines.values():
                if machine.state is State.RUNNING:
                    path = f"/v1/sandboxes/{machine.order.sandbox_id}/files?path=/workspace/go"
                    answer = await world.http.put(path, content=b"")
                    return answer.status_code == 200
            return False

        await holds(gone)

    async def test_while_one_is_under_way_nothing_else_changes_what_stands(
        self, world: World
    ) -> None:
        await done(world, body(agents=[agent()]))
        wait = "until [ -e go ]; do sleep 0.02; done"
        first = await begin(world, body(agents=[agent()], sandboxes=[box(setup=[wait])]))
        for method, path, asked in (
            ("POST", "/agents/hello/rollback", None),
            ("DELETE", "/agents/hello", None),
            ("PATCH", "/projects/shop", {"name": "store"}),
        ):
            answer = await world.http.request(method, f"/v1{path}", json=asked)
            assert answer.json()["error"]["code"] == "deploy_running", (method, path)
        await self._let_go(world)
        await ended(world, first.json()["data"]["id"])

    async def test_one_that_is_cancelled_ends_and_the_next_goes_on(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("runtools.platform.api.deploys.setup._LOOK_MS", 100)
        world = any_world
        wanted = body(
            tools=[tool()], agents=[agent()], sandboxes=[box(setup=["touch begun; sleep 600"])]
        )
        begun = (await begin(world, wanted)).json()["data"]
        path = f"/v1/deploys/{begun['id']}/cancel"

        async def sets_up() -> bool:
            row = await get(world, f"/deploys/{begun['id']}")
            living = await get(world, "/sandboxes")
            return row["done"] == 1 and any(one["state"] == "running" for one in living)

        await holds(sets_up)
        for _ in range(2):
            answer = await world.http.post(path)
            assert answer.status_code == 200, answer.text
        over = await ended(world, begun["id"])
        assert (over["state"], over["done"]) == ("failed", 1)
        assert over["error"]["code"] == "deploy_cancelled"
        assert over["cancelledBy"] == (await get(world, "/me"))["keyId"]
        await holds(lambda: _nothing_lives(world))
        assert (await world.http.post(path)).status_code == 409
        assert (await world.http.get("/v1/standing-sandboxes/dev")).status_code == 404
        right = body(tools=[tool()], agents=[agent()], sandboxes=[box(setup=["true"])])
        assert told(await done(world, right)) == [
            ("create", "sandbox", "dev"),
            ("create", "agent", "hello"),
        ]
        lines = await get(world, "/audit?action=deploys.cancel")
        assert [one["status"] for one in lines] == [409, 200, 200]

    async def test_a_repeat_of_the_same_request_is_the_same_deploy(self, world: World) -> None:
        wanted = body(agents=[agent()])
        shown = await plan(world, wanted)
        answers = [
            await world.http.post(
                "/v1/deploys",
                json={**wanted, "plan": shown["digest"]},
                headers={"Idempotency-Key": "once"},
            )
            for _ in range(2)
        ]
        ids = {one.json()["data"]["id"] for one in answers}
        assert len(ids) == 1
        assert len(await get(world, "/deploys")) == 1

    async def test_the_list_goes_by_project_and_page(self, world: World) -> None:
        for prompt in ("1", "2", "3"):
            await done(world, body(agents=[agent(systemPrompt=prompt)]))
        await done(world, body(project="other", agents=[agent()]))
        first = (await world.http.get("/v1/deploys?projectId=shop&limit=2")).json()
        rest = (
            await world.http.get(f"/v1/deploys?projectId=shop&cursor={first['meta']['nextCursor']}")
        ).json()
        seen = first["data"] + rest["data"]
        assert [one["project"] for one in seen] == ["shop"] * 3
        assert len({one["id"] for one in seen}) == 3


class TestSandboxes:
    async def test_what_can_be_is_changed_in_place(self, any_world: World) -> None:
        world = any_world
        await done(world, body(sandboxes=[box()]))
        before = await stands(world)
        changed = box(
            name="Dev",
            tags={"team": "blue"},
            internet=True,
            egress={"allow": ["pypi.org"]},
            idleTimeoutSeconds=77,
            maxLifetimeSeconds=7777,
            devUrls="public",
        )
        shown = await plan(world, body(sandboxes=[changed]))
        assert told(shown) == [("update", "sandbox", "dev")]
        await done(world, body(sandboxes=[changed]))
        assert await stands(world) == before
        seen = await world.get("shop-dev")
        assert (seen["tags"], seen["idleTimeoutSeconds"]) == ({"team": "blue"}, 77)
        order = world.host.machines[before].order
        assert (order.idle_timeout_seconds, order.max_lifetime_seconds) == (77, 7777)
        assert order.egress.allow == ["pypi.org"]
        tagged = await get(world, "/sandboxes?tag=team:blue")
        assert [one["id"] for one in tagged] == [before]
        assert (await plan(world, body(sandboxes=[changed])))["changes"] == []
        urls = await get(world, f"/sandboxes/{before}/urls")
        assert (urls["access"], urls["decidedBy"]) == ("public", "sandbox")
        await done(world, body(sandboxes=[changed | {"devUrls": None}]))
        assert (await get(world, f"/sandboxes/{before}/urls"))["decidedBy"] == "default"

    async def test_another_setup_replaces_it_once_confirmed(self, any_world: World) -> None:
        world = any_world
        await done(world, body(sandboxes=[box(setup=["touch one"])]))
        before = await stands(world)
        wanted = body(sandboxes=[box(setup=["touch two"])])
        refused = await begin(world, wanted)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "loss_unconfirmed")
        assert refused.json()["error"]["details"] == {"sandboxes": ["dev"]}
        assert await stands(world) == before
        data = await done(world, wanted, losing=["dev"])
        assert told(data) == [("replace", "sandbox", "dev")]
        after = await stands(world)
        assert after != before
        assert await files_of(world, "shop-dev") == ["two"]
        assert (await world.get(before))["state"] == "stopped"
        assert (await world.get("shop-dev"))["id"] == after

    async def test_a_setup_that_fails_leaves_the_old_one_as_it_was(self, any_world: World) -> None:
        world = any_world
        await done(world, body(sandboxes=[box(setup=["touch one"])]))
        before = await stands(world)
        wrong = body(sandboxes=[box(setup=["touch two", "echo oh no; exit 3"])], agents=[agent()])
        data = await deploy(world, wrong, losing=["dev"])
        assert (data["state"], data["done"]) == ("failed", 0)
        assert data["error"]["code"] == "setup_failed"
        assert "setup command 2 ended with exit code 3" in data["error"]["message"]
        assert data["error"]["output"] == "oh no\n"
        assert await stands(world) == before
        assert await files_of(world, "shop-dev") == ["one"]
        living = await get(world, "/sandboxes")
        assert [one["id"] for one in living] == [before]
        right = body(sandboxes=[box(setup=["touch two"])], agents=[agent()])
        data = await done(world, right, losing=["dev"])
        assert told(data) == [("replace", "sandbox", "dev"), ("create", "agent", "hello")]

    async def test_whatever_becomes_of_it_the_one_that_was_replaced_ends(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = any_world
        await done(world, body(sandboxes=[box()]))
        before = await stands(world)

        def dies(point: str) -> None:
            if point == "api.deploy.taken_over":
                raise ZeroDivisionError

        monkeypatch.setattr(boxes, "reach", dies)
        data = await deploy(world, body(sandboxes=[box(env={"A": "1"})]), losing=["dev"])
        assert data["state"] == "failed"
        assert await stands(world) != before
        assert (await world.becomes(before, state="stopped"))["name"] is None

    async def test_what_was_said_in_fewer_words_is_no_change(self, any_world: World) -> None:
        """A field that came into a shape later is not in the versions that were made before."""
        world = any_world
        await done(world, ALL)
        before = await stands(world)

        def forget(conn: Connection) -> None:
            new = {"sideBySide", "requireIsolation", "credentials"}
            rows = conn.execute(select(definition_versions.c.id, definition_versions.c.says)).all()
            for version_id, says in rows:
                fewer = {name: says[name] for name in says if name not in new}
                assert fewer != says
                mine = definition_versions.c.id == version_id
                conn.execute(update(definition_versions).where(mine).values(says=fewer))

        await world.platform.db.write(forget)
        assert (await plan(world, ALL))["changes"] == []
        assert await stands(world) == before

    async def test_what_failed_half_way_is_completed_by_the_next(self, world: World) -> None:
        wrong = body(tools=[tool()], sandboxes=[box(setup=["exit 1"])], agents=[agent()])
        data = await deploy(world, wrong)
        assert (data["state"], data["done"]) == ("failed", 1)
        right = body(tools=[tool()], sandboxes=[box(setup=["true"])], agents=[agent()])
        data = await done(world, right)
        assert told(data) == [("create", "sandbox", "dev"), ("create", "agent", "hello")]

    async def test_one_that_was_destroyed_is_made_again(self, world: World) -> None:
        wanted = body(sandboxes=[box()])
        await done(world, wanted)
        before = await stands(world)
        await world.http.delete(f"/v1/sandboxes/{before}")
        assert told(await plan(world, wanted)) == [("create", "sandbox", "dev")]
        await done(world, wanted)
        assert await stands(world) != before
        assert (await world.get("shop-dev"))["state"] == "running"

    async def test_what_was_changed_by_hand_is_seen(self, world: World) -> None:
        wanted = body(sandboxes=[box()])
        await done(world, wanted)
        await world.http.patch("/v1/sandboxes/shop-dev/egress", json={"internet": False})
        (change,) = (await plan(world, wanted))["changes"]
        assert [(f["field"], f["old"], f["new"]) for f in change["fields"]] == [
            ("internet", False, True)
        ]

    async def test_so_is_who_may_enter_its_ports(self, any_world: World) -> None:
        world = any_world
        wanted = body(sandboxes=[box()])
        await done(world, wanted)
        await world.http.post("/v1/sandboxes/shop-dev/urls", json={"access": "public"})
        # A choice about one port is nothing that a definition speaks of.
        one_port = {"access": "public", "port": 80}
        chosen = await world.http.post("/v1/sandboxes/shop-dev/urls", json=one_port)
        assert chosen.is_success
        (change,) = (await plan(world, wanted))["changes"]
        assert change["action"] == "update"
        assert [(f["field"], f["old"], f["new"]) for f in change["fields"]] == [
            ("devUrls", "public", None)
        ]
        await done(world, wanted)
        assert (await get(world, "/sandboxes/shop-dev/urls"))["decidedBy"] == "default"
        assert (await plan(world, wanted))["changes"] == []

    async def test_the_environment_is_shown_by_nothing(self, any_world: World) -> None:
        world = any_world
        line = 'echo "$A"; exit 1'
        first = await deploy(world, body(sandboxes=[box(env={"A": SECRET}, setup=[line])]))
        assert (first["state"], first["error"]["output"]) == ("failed", "***\n")
        wanted = body(sandboxes=[box(env={"A": SECRET})])
        await done(world, wanted)
        assert (await plan(world, wanted))["changes"] == []
        other = body(sandboxes=[box(env={"A": "other"})])
        (change,) = (await plan(world, other))["changes"]
        assert change["action"] == "replace"
        assert change["fields"] == [{"field": "env", "old": ["A"], "new": ["A"], "private": True}]
        for path in ("/deploys", "/standing-sandboxes", "/audit"):
            assert SECRET not in str(await get(world, path))
        assert (await get(world, "/standing-sandboxes/dev"))["definition"]["env"] == {"A": ""}

    async def test_nor_is_the_end_of_a_value_that_what_is_told_begins_in(
        self, world: World
    ) -> None:
        line = "printf '%s%03990d' \"$A\" 7; exit 1"
        data = await deploy(world, body(sandboxes=[box(env={"A": SECRET}, setup=[line])]))
        output = data["error"]["output"]
        assert output == f"***{7:03990}"

    async def test_a_setup_goes_on_where_a_pause_left_nobody_who_knows(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked, wait = [], world.host.wait_process

        async def asleep(sandbox_id: str, *args: Any) -> Any:
            looked.append(sandbox_id)
            if len(looked) < 3:
                raise SandboxPaused(f"{sandbox_id} is paused, and nobody knows")
            return await wait(sandbox_id, *args)

        monkeypatch.setattr(world.host, "wait_process", asleep)
        await done(world, body(sandboxes=[box(setup=["echo once >> n", "test $(wc -l < n) = 1"])]))
        assert len(looked) == 4

    async def test_a_setup_whose_sandbox_is_paused_for_ever_fails(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def asleep(sandbox_id: str, *_: Any) -> Any:
            raise SandboxPaused(f"{sandbox_id} is paused, and nobody knows")

        monkeypatch.setattr(world.host, "wait_process", asleep)
        monkeypatch.setattr(setup, "SETUP_SECONDS", 0.05)
        data = await deploy(world, body(sandboxes=[box(setup=["sleep 600"])]))
        assert data["error"]["code"] == "setup_failed"
        assert "paused again and again" in data["error"]["message"]

    async def test_a_setup_wakes_nothing_beyond_the_limits(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(setup, "_LOOK_MS", 20)
        begun = await begin(world, body(sandboxes=[box(setup=["sleep 600"])]))
        deploy_id = begun.json()["data"]["id"]
        await holds(lambda: _all_run(world))
        (made,) = await get(world, "/sandboxes")
        await world.create(name="other")
        limits = f"/v1/orgs/{world.org}/limits"
        assert (await world.http.patch(limits, json={"sandboxes": 1})).status_code == 200

        async def refused() -> bool:
            # Again, should it just have been about to be used.
            await world.http.post(f"/v1/sandboxes/{made['id']}/pause")
            return bool((await get(world, f"/deploys/{deploy_id}"))["state"] != "running")

        await holds(refused)
        data = await ended(world, deploy_id)
        assert (data["state"], data["error"]["code"]) == ("failed", "quota_exceeded")

    async def test_what_looks_like_a_secret_is_noted(self, world: World) -> None:
        shown = await plan(
            world, body(sandboxes=[box(env={"API_TOKEN": SECRET, "KEYBOARD": "de"})])
        )
        (note,) = shown["notes"]
        assert "API_TOKEN" in note
        assert SECRET not in str(shown)

    async def test_the_environment_lies_nowhere_in_the_clear(
        self, world: World, tmp_path: Any
    ) -> None:
        await done(world, body(sandboxes=[box(env={"A": SECRET})]))
        for file in tmp_path.rglob("*"):
            if file.is_file() and "host" not in file.relative_to(tmp_path).parts:
                assert SECRET.encode() not in file.read_bytes(), file

    async def test_secrets_enter_by_name(self, world: World) -> None:
        secret = {"name": "TOKEN", "value": SECRET, "category": "custom", "scope": "sandboxes"}
        missing = await world.http.post(
            "/v1/deploys/plan", json=body(sandboxes=[box(secrets=["TOKEN"])])
        )
        assert missing.status_code == 404
        await world.http.post("/v1/secrets", json=secret)
        await done(world, body(sandboxes=[box(secrets=["TOKEN"])]))
        assert world.host.machines[await stands(world)].order.guest.env == {"TOKEN": SECRET}

    async def test_pruning_takes_agents_down_first(self, any_world: World) -> None:
        world = any_world
        await done(world, ALL)
        box_id = await stands(world)
        kept = await plan(world, body())
        assert kept["changes"] == []
        shown = await plan(world, body(prune=True))
        assert told(shown) == [
            ("delete", "agent", "hello"),
            ("delete", "sandbox", "dev"),
            ("delete", "tool", "count"),
        ]
        await done(world, body(prune=True), losing=["dev"])
        for noun in ("agents", "tools", "standing-sandboxes"):
            assert await get(world, f"/{noun}") == []
        assert (await world.get(box_id))["state"] == "stopped"

    async def test_what_an_agent_needs_is_not_pruned(self, world: World) -> None:
        await done(world, ALL)
        for only in (["sandbox"], ["tool"]):
            answer = await world.http.post("/v1/deploys/plan", json=body(prune=True, only=only))
            assert answer.status_code == 409, answer.text
            assert "hello" in answer.json()["error"]["message"]
        assert (await world.http.delete("/v1/tools/count")).status_code == 409

    async def test_two_projects_have_the_same_slugs(self, world: World) -> None:
        for project in ("one", "two"):
            wanted = body(project=project, sandboxes=[box()], agents=[agent(sandbox="dev")])
            await done(world, wanted)
        names = {one["name"] for one in await get(world, "/sandboxes")}
        assert names == {"one-dev", "two-dev"}
        answer = await world.http.get("/v1/agents/hello")
        assert answer.status_code == 409
        assert answer.json()["error"]["details"]["projects"] == ["one", "two"]
        assert (await get(world, "/agents/hello?projectId=two"))["project"] == "two"

    async def test_a_name_that_is_taken_is_said_before_anything_is_done(self, world: World) -> None:
        await world.create(name="shop-dev")
        answer = await world.http.post("/v1/deploys/plan", json=body(sandboxes=[box()]))
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "name_taken")

    async def test_a_host_without_room(self, world: World) -> None:
        world.host.refuse(CapacityExhausted("no room"))
        data = await deploy(world, body(sandboxes=[box()], agents=[agent()]))
        assert (data["state"], data["error"]["code"]) == ("failed", "capacity_exhausted")
        await done(world, body(sandboxes=[box()], agents=[agent()]))


class TestProjects:
    async def test_what_stands_for_a_slug_is_not_moved_away_from_its_definition(
        self, world: World
    ) -> None:
        await done(world, body(sandboxes=[box()]))
        before = await stands(world)
        await world.http.post("/v1/projects", json={"name": "else"})
        for ref in (before, "shop-dev"):
            move = {"sandboxes": [ref]}
            answer = await world.http.post("/v1/projects/else/move", json=move)
            assert answer.status_code == 409, answer.text
            assert answer.json()["error"]["details"]["field"] == "sandboxes.0"
        there = await world.http.post("/v1/projects/shop/move", json={"sandboxes": [before]})
        assert there.status_code == 200, there.text  # it is where its definition is
        assert (await plan(world, body(sandboxes=[box()])))["changes"] == []

    async def test_one_in_which_something_stands_is_not_deleted(self, any_world: World) -> None:
        world = any_world
        await done(world, ALL)
        contents = (await get(world, "/projects/shop"))["contents"]
        assert (contents["agents"], contents["tools"], contents["standingSandboxes"]) == (1, 1, 1)
        for path in ("/v1/projects/shop", "/v1/projects/shop?moveTo=default"):
            answer = await world.http.delete(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "project_in_use")
        await done(world, body(prune=True), losing=["dev"])
        answer = await world.http.delete("/v1/projects/shop")
        assert answer.status_code == 200, answer.text
        assert {one["project"] for one in await get(world, "/deploys")} == {"default"}

    async def test_what_stands_in_one_is_named_after_it(self, any_world: World) -> None:
        world, path = any_world, "/v1/projects/shop"
        await done(world, body(sandboxes=[box(), box("shop-dev")]))
        ids = [await stands(world), await stands(world, "shop-dev")]

        async def named() -> list[str]:
            return [(await get(world, f"/sandboxes/{one}"))["name"] for one in ids]

        assert await named() == ["shop-dev", "shop-shop-dev"]
        await world.create(name="store-dev")
        taken = await world.http.patch(path, json={"name": "store"})
        assert taken.json()["error"]["code"] == "name_taken"
        assert "store-dev" in taken.text
        assert await named() == ["shop-dev", "shop-shop-dev"]
        # The first gets the name that the second had.
        assert (await world.http.patch(path, json={"name": "shop-shop"})).status_code == 200
        assert await named() == ["shop-shop-dev", "shop-shop-shop-dev"]
        both = [box(), box("shop-dev")]
        assert (await plan(world, body(project="shop-shop", sandboxes=both)))["changes"] == []
        await done(world, body(sandboxes=[box()]))  # another project of the old name
        assert (await get(world, "/sandboxes/shop-dev"))["id"] not in ids

    async def test_a_project_that_is_there_is_used(self, world: World) -> None:
        await world.http.post("/v1/projects", json={"name": "shop"})
        assert not (await plan(world, ALL))["makesProject"]
        await done(world, ALL)
        assert len(await get(world, "/projects")) == 2


def server(url: str = "https://theirs.example/mcp", secret: str = "DOCS_KEY") -> dict[str, Any]:
    return {"name": "docs", "url": url, "secret": secret}


class TestServers:
    async def test_who_may_not_see_secrets_has_none_sent_anywhere(self, world: World) -> None:
        member = await world.person("member")
        wanted = body(agents=[agent(mcpServers=[server()])])
        async with member.http as http:
            for path, more in (("/plan", {}), ("", {"plan": "0" * 64})):
                answer = await http.post(f"/v1/deploys{path}", json={**wanted, **more})
                error = answer.json()["error"]
                assert (answer.status_code, error["details"]["needed"]) == (403, "secret:reveal")
                assert "DOCS_KEY" in error["message"]
            bare = [{"name": "docs", "url": "https://theirs.example/mcp"}]
            answer = await http.post("/v1/deploys/plan", json=body(agents=[agent(mcpServers=bare)]))
            assert answer.status_code == 200, answer.text
        assert await get(world, "/deploys") == []

    async def test_what_is_sent_there_already_may_be_deployed_again(self, world: World) -> None:
        await done(world, body(agents=[agent(mcpServers=[server()])]))
        member = await world.person("member")
        async with member.http as http:
            same = body(agents=[agent(description="New.", mcpServers=[server()])])
            answer = await http.post("/v1/deploys/plan", json=same)
            assert told(answer.json()["data"]) == [("update", "agent", "hello")]
            for other in (server(url="https://other.example/mcp"), server(secret="OTHER_KEY")):
                wanted = body(agents=[agent(mcpServers=[other])])
                answer = await http.post("/v1/deploys/plan", json=wanted)
                assert answer.json()["error"]["code"] == "forbidden"

    async def test_no_rollback_brings_it_back_either(self, world: World) -> None:
        await done(world, body(agents=[agent(mcpServers=[server()])]))
        await done(world, body(agents=[agent()]))
        member = await world.person("member")
        async with member.http as http:
            answer = await http.post("/v1/agents/hello/rollback", json={})
            assert answer.json()["error"]["details"]["needed"] == "secret:reveal"
        answer = await world.http.post("/v1/agents/hello/rollback", json={})
        assert answer.json()["data"]["version"] == 1


class TestMovingAgents:
    async def test_it_goes_with_its_versions(self, any_world: World) -> None:
        world = any_world
        for prompt in ("one", "two"):
            await done(world, body(agents=[agent(systemPrompt=prompt)]))
        await done(world, body(project="else", tools=[tool()]))
        moved = await world.http.post("/v1/projects/else/move", json={"agents": ["hello"]})
        assert moved.status_code == 200, moved.text
        assert moved.json()["data"]["contents"]["agents"] == 1
        assert (await get(world, "/agents/hello"))["project"] == "else"
        assert len(await get(world, "/agents/hello/versions")) == 2
        wanted = body(project="else", tools=[tool()], agents=[agent(systemPrompt="two")])
        assert (await plan(world, wanted))["changes"] == []

    async def test_its_runs_and_threads_go_along(self, any_world: World) -> None:
        world = any_world
        await done(world, body(agents=[agent(model="demo")]))
        await world.http.post("/v1/projects", json={"name": "else"})
        asked = {"agentSlug": "hello", "message": "Go."}
        run = (await world.http.post("/v1/run?waitSeconds=0", json=asked)).json()["data"]

        async def places() -> set[str]:
            there = {(await get(world, f"/{kind}/{ref}"))["projectId"] for kind, ref in mine}
            (only,) = there
            assert {one["id"] for one in await get(world, f"/runs?projectId={only}")} == {run["id"]}
            return there

        mine = (("runs", run["id"]), ("threads", run["threadId"]))
        shop = (await get(world, "/projects/shop"))["id"]
        there = (await get(world, "/projects/else"))["id"]
        assert await places() == {shop}
        await world.http.post("/v1/projects/else/move", json={"agents": ["hello"]})
        assert await places() == {there}
        assert (await world.http.delete("/v1/projects/shop")).status_code == 200
        await world.http.delete("/v1/agents/hello")
        assert (await world.http.delete("/v1/projects/else")).status_code == 200
        assert await places() == {(await get(world, "/projects/default"))["id"]}

    async def test_a_run_that_is_asked_for_meanwhile_too(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = any_world
        await done(world, body(agents=[agent(model="demo")]))
        await world.http.post("/v1/projects", json={"name": "else"})
        found = definitions_service.find

        async def then_moved(*asked: Any) -> Any:
            row = await found(*asked)
            await world.http.post("/v1/projects/else/move", json={"agents": [row.id]})
            return row

        monkeypatch.setattr(definitions_service, "find", then_moved)
        asked = {"agentSlug": "hello", "message": "Go."}
        run = (await world.http.post("/v1/run?waitSeconds=0", json=asked)).json()["data"]
        there = (await get(world, "/projects/else"))["id"]
        assert (await get(world, f"/runs/{run['id']}"))["projectId"] == there
        assert (await get(world, f"/threads/{run['threadId']}"))["projectId"] == there

    async def test_all_or_none_where_what_they_name_is_there(self, any_world: World) -> None:
        world = any_world
        there = [agent(tools=["count"]), agent("free"), agent("both")]
        await done(world, body(tools=[tool()], agents=there))
        await done(world, body(project="else", agents=[agent("both")]))
        (both,) = await get(world, "/agents?projectId=shop&limit=1")
        for refs, status, code in (
            (["free", "hello"], 409, "conflict"),
            (["free", both["id"]], 409, "name_taken"),
            (["free", "both"], 409, "conflict"),
            (["free", "nothing"], 404, "not_found"),
        ):
            answer = await world.http.post("/v1/projects/else/move", json={"agents": refs})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (status, code), answer.text
            assert (await get(world, "/agents/free"))["project"] == "shop"
        await done(world, body(project="else", tools=[tool()], only=["tool"]))
        both_go = {"agents": ["free", "hello"]}
        assert (await world.http.post("/v1/projects/else/move", json=both_go)).status_code == 200

    async def test_one_that_went_while_it_waited_its_turn_is_not_there(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between its being found and the projects' being held."""
        world = any_world
        await done(world, body(agents=[agent("free")]))
        await world.http.post("/v1/projects", json={"name": "else"})
        agent_id = (await get(world, "/agents/free"))["id"]
        refuse_beside, now = store.refuse_beside, world.platform.clock.now()

        def held(conn: Connection, project_id: str) -> None:
            refuse_beside(conn, project_id)
            definitions.remove(conn, world.org, agent_id, now)

        with monkeypatch.context() as patch:
            patch.setattr(store, "refuse_beside", held)
            move = {"agents": ["free"]}
            answer = await world.http.post("/v1/projects/else/move", json=move)
        assert answer.status_code == 404, answer.text
        assert (await get(world, "/agents/free"))["project"] == "shop"


class TestTools:
    async def test_code_travels_and_a_call_says_that_nobody_runs_it(self, world: World) -> None:
        shown = await plan(world, body(tools=[tool()]))
        assert "tools_unavailable" in shown["notes"][0]
        await done(world, body(tools=[tool()]))
        seen = await get(world, "/tools/count")
        assert seen["digest"] == tool()["source"]["digest"]
        version = await get(world, "/tools/count/versions/1")
        assert version["definition"]["source"] == {
            **tool()["source"],
            "dependencies": [],
            "requiresPython": None,
        }
        call = {"action": "count", "params": {}}
        answer = await world.http.post("/v1/tools/count/execute", json=call)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "tools_unavailable")
        answer = await world.http.post("/v1/tools/count/execute", json={"action": "none"})
        assert answer.status_code == 404

    async def test_one_of_the_projects_own_is_none_of_the_marketplace(self, world: World) -> None:
        wanted = body(tools=[tool("github")], agents=[agent(tools=["github", "slack"])])
        notes = (await plan(world, wanted))["notes"]
        assert [note for note in notes if "marketplace" in note] == [
            "agent hello names slack of the marketplace, which the platform does not have yet"
        ]
        await done(world, wanted)
        again = body(agents=[agent(tools=["github"])])
        assert (await plan(world, again))["notes"] == []


class TestBadInput:
    @pytest.mark.parametrize(
        ("wanted", "named"),
        [
            (body(agents=[agent(maxIterations=0)]), "agents.0.maxIterations"),
            (body(agents=[agent(maxIterations=101)]), "agents.0.maxIterations"),
            (body(agents=[agent(), agent()]), "agents.1.slug"),
            (body(agents=[agent("hеllo")]), "agents.0.slug"),  # noqa: RUF001 - Cyrillic
            (body(agents=[agent("sandbox-abcdef012345")]), "agents.0.slug"),
            (body(agents=[agent(sandbox="nowhere")]), "agents.hello.sandbox"),
            (body(agents=[agent(tools=["nothing"])]), "agents.hello.tools"),
            (body(agents=[{**agent(), "model": "cluade-sonnet-4"}]), "agents.hello.model"),
            (
                body(agents=[{**CLAUDE, "temperature": 0.5, "thinking": True}]),
                "agents.hello.temperature",
            ),
            (body(agents=[{**CLAUDE, "topK": 5, "thinking": "low"}]), "agents.hello.topK"),
            (body(agents=[agent(f"a{n}") for n in range(1001)]), "agents"),
            (body(sandboxes=[box(tags={"a:b": "c"})]), "sandboxes.0.tags"),
            (body(sandboxes=[box(env={"A": "\0"})]), "sandboxes.0.env"),
            (body(sandboxes=[box(egress={"allow": ["!"]})]), "sandboxes.0.egress.allow.0"),
            (body(sandboxes=[box(setup=[" "])]), "sandboxes.0.setup.0"),
            (body(sandboxes=[box(env={"A": "1"}, secrets=["A"])]), "sandboxes.0.secrets"),
            (body(sandboxes=[box(template="No!")]), "sandboxes.0.template"),
            (body(tools=[tool(actions={})]), "tools.0.actions"),
            (body(tools=[tool("grep")]), "tools.0.name"),
            (
                body(tools=[tool(), tool("db", actions={"ask": taking({"type": "strin"})})]),
                "tools.1.actions.ask.parameters.properties.n.type",
            ),
            (
                body(tools=[tool(actions={"ask": taking({"$ref": "#/$defs/none"})})]),
                "tools.0.actions.ask.parameters",
            ),
            (
                body(tools=[tool(), tool("db", credentials={"required": ["url"]})]),
                "tools.1.credentials.required.0",
            ),
            (body(project="No!"), "project"),
            (body(project="sandbox-abcdef012345"), "project"),
            (body(only=["nothing"]), "only.0"),
            ({"agents": []}, "project"),
        ],
    )
    async def test_the_field_is_named_and_nothing_is_there(
        self, world: World, wanted: dict[str, Any], named: str
    ) -> None:
        for path, more in (("/plan", {}), ("", {"plan": "0" * 64})):
            answer = await world.http.post(f"/v1/deploys{path}", json={**wanted, **more})
            assert answer.status_code == 400, answer.text
            assert named in answer.json()["error"]["message"], answer.text
            (field,) = answer.json()["error"]["details"]["fields"]
            assert field["field"] == named
        assert await get(world, "/deploys") == []

    async def test_a_template_that_is_not_there(self, world: World) -> None:
        wanted = body(sandboxes=[box(template="no-such")])
        answer = await world.http.post("/v1/deploys/plan", json=wanted)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert "dev" in answer.json()["error"]["message"]

    async def test_a_stranger_sees_none_of_it(self, world: World) -> None:
        data = await done(world, ALL)
        seen = {
            "agents": await get(world, "/agents/hello"),
            "tools": await get(world, "/tools/count"),
            "standing-sandboxes": await get(world, "/standing-sandboxes/dev"),
        }
        async with await world.stranger() as theirs:
            assert (await theirs.get(f"/v1/deploys/{data['id']}")).status_code == 404
            assert (await theirs.get("/v1/deploys")).json()["data"] == []
            for noun, one in seen.items():
                assert (await theirs.get(f"/v1/{noun}")).json()["data"] == []
                for ref in (one["id"], one["slug"]):
                    assert (await theirs.get(f"/v1/{noun}/{ref}")).status_code == 404
            for path in ("/agents/hello", "/tools/count"):
                assert (await theirs.delete(f"/v1{path}")).status_code == 404
            answer = await theirs.post("/v1/deploys/plan", json=body(agents=[agent()]))
            assert answer.json()["data"]["makesProject"]


class TestLease:
    async def test_what_nobody_is_at_is_taken_up(self, world: World) -> None:
        """A deploy whose process has gone: its row is there, and its lease has run out."""
        platform = world.platform
        answer = await begin(world, body(sandboxes=[box(setup=["sleep 0.3"])]))
        deploy_id = answer.json()["data"]["id"]
        tasks = [task for task in platform.background if deploy_id in task.get_name()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert (await ended(world, deploy_id))["state"] == "done"
        assert len(world.host.machines) == 1

    async def test_one_that_somebody_has_is_left_alone(self, world: World) -> None:
        platform = world.platform
        wait = "until [ -e go ]; do sleep 0.02; done"
        answer = await begin(world, body(sandboxes=[box(setup=[wait])]))
        deploy_id = answer.json()["data"]["id"]
        await holds(lambda: len(world.host.machines) == 1)
        assert await platform.db.read(store.waiting, platform.clock.now()) == []
        await work.carry_out(platform, deploy_id)  # returns at once: another one has it
        assert (await get(world, f"/deploys/{deploy_id}"))["state"] == "running"
        await TestDeploy()._let_go(world)
        await ended(world, deploy_id)
