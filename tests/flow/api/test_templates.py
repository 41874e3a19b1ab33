"""Templates through the api."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from runtools.errors import TemplateInUse, Unavailable
from runtools.platform.api import reconcile
from runtools.platform.api.templates import service
from runtools.platform.api.templates.store import Version
from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.testing.api_world import World, holds


async def log(world: World, slug: str, query: str = "") -> list[tuple[str, Any]]:
    """A build's whole log: names and data of its events."""
    found = []
    url = f"/v1/templates/{slug}/logs{query}"
    async with asyncio.timeout(60), world.http.stream("GET", url) as answer:
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


class TestBuild:
    async def test_a_version_becomes_ready(self, any_world: World) -> None:
        any_world.host.gate.clear()
        made = (
            await any_world.http.post(
                "/v1/templates/mine/builds", json={"recipe": "base-debian", "apt": ["htop"]}
            )
        ).json()["data"]
        assert (made["version"], made["state"], made["recipe"]) == (1, "building", "base-debian")
        early = await any_world.http.post("/v1/sandboxes", json={"template": "mine"})
        assert early.json()["error"]["code"] == "conflict"
        any_world.host.gate.set()
        found = await log(any_world, "mine")
        assert [name for name, _ in found] == ["line", "line", "line", "end"]
        assert [data["n"] for _, data in found[:3]] == [1, 2, 3]
        assert found[-1][1]["state"] == "ready"
        assert found[-1][1]["sizeBytes"] > 0
        assert found[-1][1]["finishedAt"] is not None
        assert (await any_world.create(template="mine"))["template"] == "mine"
        assert any_world.host.builds[made["id"]].order.apt == ["htop"]

    async def test_versions_count_up_and_new_sandboxes_get_the_newest(
        self, any_world: World
    ) -> None:
        old = await any_world.create()
        await any_world.build()
        new = await any_world.create()
        pinned = await any_world.create(template="base-debian@1")
        assert [s["templateVersion"] for s in (old, new, pinned)] == [1, 2, 1]
        listed = (await any_world.http.get("/v1/templates")).json()["data"]
        assert [(t["slug"], t["version"], t["isDefault"]) for t in listed] == [
            ("base-debian", 2, True)
        ]
        versions = (await any_world.http.get("/v1/templates/base-debian/versions")).json()["data"]
        assert [version["version"] for version in versions] == [2, 1]

    async def test_a_failed_build_keeps_the_version_before(self, world: World) -> None:
        body = {"run": "fail"}
        await world.http.post("/v1/templates/base-debian/builds", json=body)
        assert (await log(world, "base-debian"))[-1][1]["error"] == "the script failed"
        assert (await world.create())["templateVersion"] == 1
        only = await world.http.post(
            "/v1/templates/x/builds", json=body | {"recipe": "base-debian"}
        )
        assert only.status_code == 201
        await log(world, "x")
        answer = await world.http.post("/v1/sandboxes", json={"template": "x"})
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "build_failed"

    async def test_logs_resume_and_tell_of_any_version(self, world: World) -> None:
        assert len(await log(world, "base-debian", "?version=1")) == 4
        assert len(await log(world, "base-debian", "?after=2")) == 2
        missing = await world.http.get("/v1/templates/base-debian/logs?version=7")
        assert missing.status_code == 404

    async def test_an_org_has_so_many_under_way_and_no_more(self, any_world: World) -> None:
        """However many are asked for at once; who repeats one that was begun is answered."""
        any_world.host.gate.clear()
        most = any_world.platform.settings.limit_builds

        async def begin(n: int) -> httpx.Response:
            url, headers = f"/v1/templates/mine-{n}/builds", {"Idempotency-Key": f"build-{n}"}
            return await any_world.http.post(url, json={"recipe": "base-debian"}, headers=headers)

        answers = await asyncio.gather(*(begin(n) for n in range(most + 3)))
        begun = [n for n, answer in enumerate(answers) if answer.status_code == 201]
        refused = [n for n, answer in enumerate(answers) if answer.status_code == 409]
        assert (len(begun), len(refused)) == (most, 3)
        error = answers[refused[0]].json()["error"]
        assert error["code"] == "quota_exceeded"
        assert error["details"] == {"limit": "builds", "max": most, "used": most, "asked": 1}
        assert (await begin(begun[0])).status_code == 201
        await any_world.http.delete(f"/v1/templates/mine-{begun[0]}")
        other = await any_world.http.post("/v1/templates/base-debian/builds", json={})
        assert other.status_code == 201

    async def test_the_untested_recipe_says_so(self, world: World) -> None:
        made = (await world.http.post("/v1/templates/base-ubuntu/builds", json={})).json()["data"]
        assert made["tested"] is False

    @pytest.mark.parametrize(
        ("slug", "body"),
        [
            ("nothing", {}),
            ("UPPER", {}),
            ("mine", {"recipe": "nothing"}),
            ("base-ubuntu", {"recipe": "base-debian"}),
            ("base-debian", {"apt": ["--force"]}),
            ("base-debian", {"apt": ["a b"]}),
            ("base-debian", {"apt": "htop"}),
            ("base-debian", {"run": "x" * 2_000_000}),
            ("base-debian", {"dockerfile": "FROM x"}),
        ],
    )
    async def test_bad_input(self, world: World, slug: str, body: Any) -> None:
        answer = await world.http.post(f"/v1/templates/{slug}/builds", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["details"]["fields"]


class TestDelete:
    async def test_refused_while_a_sandbox_stands_on_it(self, any_world: World) -> None:
        made = await any_world.create()
        path = f"/v1/sandboxes/{made['id']}"
        answer = await any_world.http.delete("/v1/templates/base-debian")
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "template_in_use"
        assert answer.json()["error"]["details"]["sandboxes"] == 1
        await any_world.http.post(f"{path}/snapshots", json={"name": "s"})
        kept = await any_world.http.delete("/v1/templates/base-debian")
        assert kept.json()["error"]["details"]["snapshots"] == 1
        await any_world.http.delete(path)
        gone = await any_world.http.delete("/v1/templates/base-debian")
        assert [version["version"] for version in gone.json()["data"]] == [1]
        assert (await any_world.http.get("/v1/templates/base-debian")).status_code == 404
        assert (await any_world.http.post("/v1/sandboxes", json={})).status_code == 404
        assert any_world.host.builds == {}

    async def test_of_other_orgs_is_told_only_that_there_are_some(self, any_world: World) -> None:
        path = "/v1/templates/base-debian"
        member = await any_world.person("member")
        async with member.http as asks, await any_world.stranger() as other:
            boxes = [
                (await other.post("/v1/sandboxes", json={})).json()["data"]["id"] for _ in range(2)
            ]
            await other.post(f"/v1/sandboxes/{boxes[0]}/snapshots", json={})
            told = (await asks.delete(path)).json()["error"]
            assert told["code"] == "template_in_use"
            assert told["message"] == "base-debian@1 is used by other orgs"
            wanted = {"sandboxes": 0, "snapshots": 0, "others": True, "version": 1}
            assert told["details"] == wanted
            await any_world.create()
            told = (await asks.delete(path)).json()["error"]
            assert told["details"] == wanted | {"sandboxes": 1}
            assert told["message"].endswith("by 1 sandboxes and 0 snapshots, and by other orgs")
            whole = (await any_world.http.delete(path)).json()["error"]  # the operator's
            counted = {"otherSandboxes": 2, "otherSnapshots": 1}
            assert whole["details"] == wanted | {"sandboxes": 1} | counted

    async def test_ids_that_a_host_names_are_the_operators(self, world: World) -> None:
        users = ["sandbox-of-another0"]

        async def refuse(_version: str) -> None:
            raise TemplateInUse(f"1 stand on it, {users[0]} among them", details={"users": users})

        world.host.drop_template = refuse  # type: ignore[method-assign, assignment]
        member = await world.person("member")
        async with member.http as asks:
            answer = await asks.delete("/v1/templates/base-debian")
        assert answer.json()["error"]["code"] == "template_in_use"
        assert users[0] not in answer.text
        await holds(lambda: _is_ready(world))
        whole = await world.http.delete("/v1/templates/base-debian")
        assert whole.json()["error"]["details"]["users"] == users

    async def test_while_an_ended_one_can_be_recovered(self, world: World) -> None:
        made = await world.create()
        await world.host.die(made["id"], "gone")
        await world.becomes(made["id"], state="stopped")
        assert (await world.http.delete("/v1/templates/base-debian")).status_code == 409
        await world.http.post("/v1/prune", json={"ended": True, "warm": False})
        assert (await world.http.delete("/v1/templates/base-debian")).status_code == 200

    async def test_a_number_is_never_given_twice(self, world: World) -> None:
        await world.http.delete("/v1/templates/base-debian?version=1")
        assert (await world.build())["version"] == 2

    @pytest.mark.parametrize("query", ["?version=2", ""])
    async def test_one_being_built_is_built_no_more(self, any_world: World, query: str) -> None:
        path = "/v1/templates/base-debian"
        begun = await any_world.http.post(f"{path}/builds", json={"run": "sleep 1000"})
        following = asyncio.create_task(log(any_world, "base-debian", "?version=2"))
        version_id = begun.json()["data"]["id"]
        await holds(lambda: _says(any_world, version_id))
        headers = {"Idempotency-Key": "k"}
        first = await any_world.http.delete(f"{path}{query}", headers=headers)
        again = await any_world.http.delete(f"{path}{query}", headers=headers)
        assert first.json()["data"] == again.json()["data"]
        told = first.json()["data"][0]
        assert (told["version"], told["state"], told["step"]) == (2, "failed", "deleted")
        assert told["error"] == "it was deleted while it was being built"
        assert (await following)[-1] == ("end", told)
        assert version_id not in any_world.host.builds
        await holds(lambda: _is_settled(any_world))
        late = await any_world.http.delete(f"{path}?version=2")
        assert late.json()["error"]["code"] == "not_found"
        assert (await any_world.build())["version"] == 3

    async def test_one_whose_order_is_on_its_way_is_not_built_after_all(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, go, build = asyncio.Event(), asyncio.Event(), world.host.build

        async def late(wanted: BuildOrder) -> Built:
            asked.set()
            await go.wait()
            return await build(wanted)

        monkeypatch.setattr(world.host, "build", late)
        path = "/v1/templates/base-debian"
        building = asyncio.create_task(world.http.post(f"{path}/builds", json={}))
        await asked.wait()
        gone = await world.http.delete(f"{path}?version=2")
        assert gone.json()["data"][0]["step"] == "deleted"
        go.set()
        answer = await building
        assert answer.json()["error"]["code"] == "conflict"
        assert "was deleted before its build began" in answer.json()["error"]["message"]
        assert len(world.host.builds) == 1

    async def test_one_that_the_host_does_not_let_go_is_built_on(self, world: World) -> None:
        drop = world.host.drop_template

        async def refuse(_version: str) -> None:
            raise Unavailable("not now")

        world.host.drop_template = refuse  # type: ignore[method-assign, assignment]
        path = "/v1/templates/base-debian"
        world.host.gate.clear()
        await world.http.post(f"{path}/builds", json={})
        answer = await world.http.delete(f"{path}?version=2")
        assert answer.json()["error"]["code"] == "unavailable"
        shown = (await world.http.get(path)).json()["data"]
        assert (shown["version"], shown["state"]) == (2, "building")
        world.host.gate.set()
        await holds(lambda: _is_ready(world))
        world.host.drop_template = drop  # type: ignore[method-assign]

    async def test_of_two_at_once_each_is_told_what_it_has_done(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One has looked which there are before the other began."""
        await any_world.build()
        path, look, other = "/v1/templates/base-debian", service.versions, []

        async def versions(*args: Any, **how: Any) -> list[Version]:
            found = await look(*args, **how)
            if not other:
                other.append(None)
                headers = {"Idempotency-Key": "other"}
                other[0] = await any_world.http.delete(f"{path}?version=2", headers=headers)
            return found

        monkeypatch.setattr(service, "versions", versions)
        mine = await any_world.http.delete(path, headers={"Idempotency-Key": "mine"})
        assert [one["version"] for one in mine.json()["data"]] == [1]
        assert [one["version"] for one in other[0].json()["data"]] == [2]
        monkeypatch.undo()
        for key, answer in (("mine", mine), ("other", other[0])):
            query = "" if key == "mine" else "?version=2"
            again = await any_world.http.delete(f"{path}{query}", headers={"Idempotency-Key": key})
            assert again.json()["data"] == answer.json()["data"]

    async def test_where_another_deletes_all_that_was_meant_there_is_none(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, look, other = "/v1/templates/base-debian", service.versions, []

        async def versions(*args: Any, **how: Any) -> list[Version]:
            found = await look(*args, **how)
            if not other:
                other.append(None)
                other[0] = await any_world.http.delete(path)
            return found

        monkeypatch.setattr(service, "versions", versions)
        mine = await any_world.http.delete(path)
        assert other[0].status_code == 200
        assert mine.json()["error"]["code"] == "not_found"

    async def test_what_the_host_refuses_stays(self, world: World) -> None:
        async def refuse(_version: str) -> None:
            raise TemplateInUse("a machine still stands on it")

        world.host.drop_template = refuse  # type: ignore[method-assign, assignment]
        answer = await world.http.delete("/v1/templates/base-debian")
        assert answer.json()["error"]["code"] == "template_in_use"
        await holds(lambda: _is_ready(world))

    async def test_of_all_those_stay_that_come_after_what_the_host_refuses(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also while it thinks about that, and where the act is repeated."""
        path, drop, refused = "/v1/templates/base-debian", any_world.host.drop_template, []
        middle = await any_world.build()
        await any_world.build()

        async def refuse(version_id: str) -> None:
            if version_id == middle["id"]:
                if not refused:
                    await reconcile.repair(any_world.platform, reconcile.YOUNG)
                    await asyncio.sleep(0.2)  # it would have been asked for by then
                refused.append(version_id)
                raise TemplateInUse("a machine still stands on it")
            await drop(version_id)

        monkeypatch.setattr(any_world.host, "drop_template", refuse)
        for _ in range(2):
            answer = await any_world.http.delete(path, headers={"Idempotency-Key": "k"})
            assert answer.json()["error"]["code"] == "template_in_use"
        await reconcile.repair(any_world.platform, reconcile.YOUNG)
        await holds(lambda: _is_settled(any_world))
        there = (await any_world.http.get(f"{path}/versions")).json()["data"]
        assert [(one["version"], one["state"]) for one in there] == [(2, "ready"), (1, "ready")]
        assert set(any_world.host.builds) == {one["id"] for one in there}
        assert refused == [middle["id"]] * 2


async def _says(world: World, version_id: str) -> bool:
    return bool(world.host.builds[version_id].lines)


async def _is_settled(world: World) -> bool:
    """Nothing is asked of a host any more."""
    return not world.platform.asking


async def _is_ready(world: World) -> bool:
    shown = await world.http.get("/v1/templates/base-debian")
    return bool(shown.status_code == 200 and shown.json()["data"]["state"] == "ready")


class TestPlatformTemplates:
    async def test_a_new_org_makes_a_sandbox_at_once(self, any_world: World) -> None:
        await any_world.build("mine", recipe="base-debian")
        await any_world.build("base-debian", run="echo secret-of-ours", apt=["jq"])
        async with await any_world.stranger() as http:
            (shown,) = (await http.get("/v1/templates")).json()["data"]
            told = (shown["slug"], shown["version"], shown["isOwn"], shown["isDefault"])
            assert told == (
                "base-debian",
                1,
                False,
                True,
            )  # not what has something of the org in it
            made = await http.post("/v1/sandboxes", json={"name": "first"})
            assert made.status_code == 201, made.text
            assert (await http.get("/v1/templates/mine")).status_code == 404
            assert (await http.get("/v1/templates/base-debian/logs")).status_code == 404
            assert (await http.delete("/v1/templates/base-debian")).status_code == 404
        assert (await any_world.http.get("/v1/templates/base-debian")).json()["data"]["isOwn"]

    async def test_ones_own_comes_first_and_is_nobody_elses(self, any_world: World) -> None:
        async with await any_world.stranger() as http, await any_world.stranger() as third:
            for _ in range(2):
                await any_world.build("base-debian", by=http)
            (shown,) = (await http.get("/v1/templates")).json()["data"]
            assert shown["isOwn"]
            made = (await http.post("/v1/sandboxes", json={})).json()["data"]
            mine = (await http.get("/v1/templates/base-debian")).json()["data"]
            assert made["templateVersion"] == mine["version"] == 2  # the platform's has one alone
            (theirs,) = (await third.get("/v1/templates")).json()["data"]
            assert theirs["id"] != mine["id"]

    async def test_a_build_of_ones_own_takes_it_from_nobody(self, any_world: World) -> None:
        async with await any_world.stranger() as http:

            async def version() -> int:
                made = await http.post("/v1/sandboxes", json={})
                assert made.status_code == 201, made.text
                return int(made.json()["data"]["templateVersion"])

            await any_world.build()
            assert await version() == 2
            any_world.host.gate.clear()
            await http.post("/v1/templates/base-debian/builds", json={"run": "fail"})
            assert await version() == 2  # the platform's: its own is being built
            own = await http.post("/v1/sandboxes", json={"template": "base-debian@1"})
            assert own.json()["error"]["code"] == "conflict"
            any_world.host.gate.set()
            await holds(lambda: _is(http, "failed"))
            assert await version() == 2
            own = await http.post("/v1/sandboxes", json={"template": "base-debian@1"})
            assert own.json()["error"]["code"] == "build_failed"
            other = await http.post("/v1/sandboxes", json={"template": "base-debian@2"})
            assert other.json()["error"]["code"] == "not_found"
            await http.post("/v1/templates/base-debian/builds", json={})
            await holds(lambda: _is(http, "ready"))
            made = (await http.post("/v1/sandboxes", json={})).json()["data"]
            mine = (await http.get("/v1/templates/base-debian")).json()["data"]
            assert mine["isOwn"]
            assert made["templateVersion"] == mine["version"] == 2


async def _is(http: httpx.AsyncClient, state: str) -> bool:
    shown = (await http.get("/v1/templates/base-debian")).json()["data"]
    return bool(shown["isOwn"] and shown["state"] == state)
