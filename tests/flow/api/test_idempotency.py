"""Repeats of mutating requests."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, func, select

from runtools.errors import CapacityExhausted, GuestUnreachable, SandboxPaused
from runtools.platform.api.audit import edge as audit
from runtools.platform.api.idempotency import store
from runtools.platform.api.idempotency.store import Remembered
from runtools.testing.api_world import World, client, holds
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import public_key, work

SECRET = {"name": "A", "value": "v"}


async def post(world: World, path: str, key: str, body: Any = None) -> httpx.Response:
    """A request with a key."""
    return await world.http.post(path, json=body or {}, headers={"Idempotency-Key": key})


def _remembered(conn: Connection) -> int:
    return int(conn.scalar(select(func.count()).select_from(store.requests)) or 0)


def _answered(conn: Connection) -> int:
    answered = store.requests.c.status.is_not(None)
    return int(conn.scalar(select(func.count()).where(answered)) or 0)


async def deploy(world: World, prompt: str) -> None:
    """An agent of that prompt, deployed."""
    agent = {"slug": "hello", "name": "Hello", "model": "demo", "systemPrompt": prompt}
    body = {"project": "shop", "agents": [agent]}
    plan = (await world.http.post("/v1/deploys/plan", json=body)).json()["data"]
    answer = await world.http.post("/v1/deploys", json={**body, "plan": plan["digest"]})
    assert answer.status_code < 300, answer.text
    path = f"/v1/deploys/{answer.json()['data']['id']}"

    async def done() -> bool:
        return bool((await world.http.get(path)).json()["data"]["state"] == "done")

    await holds(done)


class TestRepeats:
    async def test_a_create_is_done_once(self, any_world: World) -> None:
        first = await post(any_world, "/v1/sandboxes", "k1", {"name": "one"})
        again = await post(any_world, "/v1/sandboxes", "k1", {"name": "one"})
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json()["data"] == again.json()["data"]
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json()["meta"]["requestId"] == again.headers["x-request-id"]
        assert len((await any_world.http.get("/v1/sandboxes")).json()["data"]) == 1

    async def test_many_at_once_join(self, any_world: World) -> None:
        answers = await asyncio.gather(
            *(post(any_world, "/v1/sandboxes", "k1", {"tags": {"a": "b"}}) for _ in range(8))
        )
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["data"]["id"] for answer in answers}) == 1
        creates = [call for call in any_world.host.calls if call[0].startswith("create")]
        assert len(creates) == 1

    async def test_nobody_gets_the_answer_of_somebody_else(self, any_world: World) -> None:
        await post(any_world, "/v1/secrets", "k1", {"name": "A", "value": "v"})
        for scopes in (["sandbox:read"], []):
            body = {"name": "k", "scopes": scopes}
            secret = (await any_world.http.post("/v1/api-keys", json=body)).json()["data"]["key"]
            async with client(any_world.url, secret) as http:
                headers = {"Idempotency-Key": "k1"}
                body = {"name": "A", "value": "v"}
                answer = await http.post("/v1/secrets", json=body, headers=headers)
                assert answer.status_code == 409, answer.text
                assert answer.json()["error"]["code"] == "idempotency_mismatch"
                assert "idempotency-replayed" not in answer.headers

    async def test_another_body_is_a_mismatch(self, any_world: World) -> None:
        await post(any_world, "/v1/sandboxes", "k1", {"name": "one"})
        for path, body in [("/v1/sandboxes", {"name": "two"}), ("/v1/sandboxes/one/pause", {})]:
            answer = await post(any_world, path, "k1", body)
            assert answer.status_code == 409
            assert answer.json()["error"]["code"] == "idempotency_mismatch"

    async def test_who_is_in_no_org_has_keys_too(self, any_world: World) -> None:
        """They are the person's own, wherever it is let in."""
        root = await any_world.person(None, operator=True)
        other = await any_world.person(None, email="other@example.org", operator=True)
        headers, codes = {"Idempotency-Key": "k1"}, []
        async with root.http, other.http:
            for http, name in ((root.http, "A"), (root.http, "B"), (other.http, "B")):
                body = {"name": name, "adminEmail": "bob@example.org"}
                answer = await http.post("/v1/orgs", json=body, headers=headers)
                codes.append(answer.json().get("error", {}).get("code"))
            gone = await root.http.delete("/v1/sessions/current", headers=headers)
            assert gone.json()["error"]["code"] == "idempotency_mismatch"
        assert codes == [None, "idempotency_mismatch", None]

    async def test_a_persons_key_makes_nothing_in_a_second_org(self, any_world: World) -> None:
        """Also where the same session acts in another org when it asks again."""
        root = await any_world.person("admin", operator=True)
        async with root.http as http:
            made = await http.post("/v1/orgs", json={"name": "Other"})
            answers = []
            for org in (any_world.org, made.json()["data"]["id"], any_world.org):
                assert (await http.post(f"/v1/orgs/{org}/switch")).is_success
                for path, body in (("/v1/secrets", SECRET), ("/v1/orgs", {"name": "New"})):
                    headers = {"Idempotency-Key": path}
                    answers.append(await http.post(path, json=body, headers=headers))
            assert [answer.status_code for answer in answers] == [201, 201, 409, 409, 201, 201]
            codes = {answer.json()["error"]["code"] for answer in answers[2:4]}
            assert codes == {"idempotency_mismatch"}
            assert answers[4].json()["data"] == answers[0].json()["data"]
            assert answers[5].json()["data"]["id"] == answers[1].json()["data"]["id"]

    async def test_another_org_has_keys_of_its_own(self, world: World) -> None:
        await post(world, "/v1/sandboxes", "k1")
        async with await world.stranger() as other:
            answer = await other.post(
                "/v1/api-keys", json={"name": "x"}, headers={"Idempotency-Key": "k1"}
            )
            assert answer.status_code == 201

    async def test_a_refused_act_may_be_asked_again(self, world: World) -> None:
        world.host.refuse(CapacityExhausted("full"))
        assert (await post(world, "/v1/sandboxes", "k1")).status_code == 503
        assert (await post(world, "/v1/sandboxes", "k1")).status_code == 201

    async def test_an_act_of_unknown_outcome_is_repeated_under_its_own_op(
        self, world: World
    ) -> None:
        path = f"/v1/sandboxes/{(await world.create())['id']}/snapshots"
        world.host.refuse(GuestUnreachable("it does not answer"))
        assert (await post(world, path, "k1")).status_code == 502
        assert (await post(world, path, "k1")).status_code == 201
        ops = [call[0] for call in world.host.calls if call[0].startswith("snapshot")]
        assert len(ops) == 2
        assert ops[0] == ops[1]

    async def test_what_was_under_way_when_its_sandbox_was_paused_is_repeated_so_too(
        self, world: World
    ) -> None:
        """It may have been done by then: the guest's journal says, if it is asked by the same op."""
        path = f"/v1/sandboxes/{(await world.create())['id']}/files?path=/f&append=true"
        world.host.refuse(SandboxPaused("it was paused while this was under way"))
        for status in (409, 200):
            answer = await world.http.put(path, content=b"x", headers={"Idempotency-Key": "k1"})
            assert answer.status_code == status, answer.text
        ops = [call[0] for call in world.host.calls if call[0].startswith("write ")]
        assert len(ops) == 2
        assert ops[0] == ops[1]

    async def test_a_resume_that_waits_for_room_is_repeated_so_too(self, any_world: World) -> None:
        """It goes on: another op would be another resume."""
        path = f"/v1/sandboxes/{(await any_world.create())['id']}"
        await post(any_world, f"{path}/pause", "k0")
        await any_world.host.crowd_out(path.rpartition("/")[2])
        first = await post(any_world, f"{path}/resume", "k1")
        assert (first.status_code, first.json()["error"]["code"]) == (503, "waits_for_room")
        again = await post(any_world, f"{path}/resume", "k1")
        assert (again.status_code, again.json()["data"]["state"]) == (200, "running")
        ops = [call[0] for call in any_world.host.calls if call[0].startswith("resume ")]
        assert len(ops) == 2
        assert ops[0] == ops[1]

    async def test_an_answer_lost_on_the_way_is_found_again(self, world: World) -> None:
        path = f"/v1/sandboxes/{(await world.create())['id']}/snapshots"
        world.host.lose_answer()
        assert (await post(world, path, "k1", {"name": "a"})).status_code == 503
        assert (await post(world, path, "k1", {"name": "a"})).status_code == 201
        assert len(world.host.snapshots) == 1

    async def test_exec_is_not_run_twice(self, world: World) -> None:
        path = f"/v1/sandboxes/{(await world.create())['id']}"
        body = {"command": "echo x >> count; cat count"}
        first = await post(world, f"{path}/exec", "k1", body)
        again = await post(world, f"{path}/exec", "k1", body)
        assert first.json()["data"] == again.json()["data"]
        assert await world.platform.db.read(_remembered) == 0
        other = await post(world, f"{path}/exec", "k1", {"command": "true"})
        assert other.json()["error"]["code"] == "idempotency_mismatch"

    async def test_uploads_compare_their_bytes(self, world: World) -> None:
        url = f"/v1/sandboxes/{(await world.create())['id']}/files?path=/f&append=true"
        headers = {"Idempotency-Key": "k1"}
        first = await world.http.put(url, content=b"abc", headers=headers)
        again = await world.http.put(url, content=b"abc", headers=headers)
        assert first.json()["data"] == again.json()["data"]
        assert again.json()["data"]["size"] == 3
        other = await world.http.put(url, content=b"abd", headers=headers)
        assert other.json()["error"]["code"] == "idempotency_mismatch"

    async def test_an_api_key_is_made_once_and_shown_once(self, world: World) -> None:
        first = await post(world, "/v1/api-keys", "k1", {"name": "x"})
        again = await post(world, "/v1/api-keys", "k1", {"name": "x"})
        assert first.json()["data"]["key"].startswith("rt_live_")
        assert again.json()["data"] == first.json()["data"] | {"key": None}

    async def test_a_malformed_key_is_refused(self, world: World) -> None:
        for key in ("", "a b", "x" * 256):
            answer = await post(world, "/v1/sandboxes", key)
            assert answer.json()["error"]["code"] == "invalid_request", key

    async def test_of_twins_the_answer_stands_whatever_the_other_is_told(
        self, any_world: World
    ) -> None:
        """As where two processes are at it: what one of them is refused, the other may have done."""
        db, now, place = any_world.platform.db, any_world.platform.clock.now(), (any_world.org, "k")
        for op in ("first", "second"):
            known = await db.write(store.begin, *place, "r", op, now)
            assert known == Remembered("r", "first", None, None)
        assert await db.write(store.forget, *place, "first") is None
        assert await db.read(store.find, *place) is None
        answered = Remembered("r", "first", 201, "one")
        assert await db.write(store.answer, *place, answered, now) is None
        assert await db.read(store.find, *place) == answered
        late = Remembered("r", "first", 201, "late")
        assert await db.write(store.answer, *place, late, now) == answered
        assert await db.write(store.forget, *place, "first") == answered
        # Nothing of it is told to another act, or taken away by it.
        other = Remembered("r", "other", 201, "other")
        assert await db.write(store.answer, *place, other, now) == answered
        assert await db.write(store.forget, *place, "other") is None
        assert await db.read(store.find, *place) == answered

    async def test_it_is_forgotten_after_a_day(self, any_world: World) -> None:
        first = await post(any_world, "/v1/sandboxes", "k1")
        platform = any_world.platform

        async def kept() -> bool:  # it is told first
            return bool(await platform.db.read(_answered))

        await holds(kept)
        later = platform.clock.now() + timedelta(hours=1)
        assert await platform.db.write(store.expire, later) == 1
        second = await post(any_world, "/v1/sandboxes", "k1")
        assert first.json()["data"]["id"] != second.json()["data"]["id"]


class TestLost:
    """The first dies when it has done what it does and is not answered; others act, and it comes again."""

    async def again(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        asked: tuple[str, str, Any],
        newer: tuple[str, str, Any] | None,
    ) -> Any:
        """What the repeat is answered."""
        method, path, body = asked
        headers = {"Idempotency-Key": f"{method}-{path}"}

        def dies(*_: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(audit, "reach", dies)
            answer = await world.http.request(method, path, json=body, headers=headers)
        assert answer.status_code == 500, answer.text
        if newer is None:
            await deploy(world, "newest")
        else:
            done = await world.http.request(newer[0], newer[1], json=newer[2])
            assert done.status_code < 300, (asked, done.text)
        answer = await world.http.request(method, path, json=body, headers=headers)
        assert answer.headers.get("idempotency-replayed") == "true", (asked, answer.text)
        return answer.json()["data"]

    async def test_one_whose_answer_was_lost_undoes_nothing_newer(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        newer = ("POST", "/v1/secrets", {"name": "A", "value": "newer"})
        for version, method, path, body in (
            (1, "POST", "/v1/secrets", {"name": "A", "value": "older"}),
            (3, "PATCH", "/v1/secrets/A", {"value": "older"}),
            (4, "DELETE", "/v1/secrets/A", None),
        ):
            told = await self.again(any_world, monkeypatch, (method, path, body), newer)
            assert told["version"] == version
            shown = await any_world.http.post("/v1/secrets/A/reveal")
            assert shown.json()["data"]["value"] == "newer", method

    async def test_a_rollback_goes_one_back_and_not_two(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for prompt in ("one", "two", "three"):
            await deploy(any_world, prompt)
        path, http = "/v1/agents/hello", any_world.http
        look = ("GET", path, None)
        told = await self.again(any_world, monkeypatch, ("POST", f"{path}/rollback", None), look)
        assert told["version"] == 2
        assert (await http.get(path)).json()["data"]["version"] == 2
        told = await self.again(any_world, monkeypatch, ("DELETE", path, None), None)
        assert (await http.get(path)).json()["data"]["id"] != told["id"]

    async def test_what_was_set_since_stays(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever says how something is to be from now on."""
        ann = await any_world.person("member", operator=True)
        bob = await any_world.person("admin", email="bob@example.org")
        await ann.http.aclose()
        await bob.http.aclose()
        org = Org(any_world, any_world.org, "amber", any_world.http)
        project = (await org.ask("POST", "/v1/projects", json={"name": "one"}))["id"]
        box = (await any_world.create())["id"]
        await org.ask("POST", "/v1/run?waitSeconds=0", json=await work(org, {}))
        thread = (await org.ask("GET", "/v1/threads"))[0]["id"]
        member, urls = f"/v1/members/{ann.user_id}", f"/v1/sandboxes/{box}/urls"
        limits = f"/v1/orgs/{any_world.org}/limits"
        for method, path, lost, then, read, field in (
            ("PATCH", member, {"role": "admin"}, {"role": "member"}, "/v1/members", "role"),
            ("PATCH", "/v1/org", {"name": "old"}, {"name": "new"}, "/v1/org", "name"),
            (
                "PATCH",
                f"/v1/projects/{project}",
                {"color": "#000000"},
                {"color": "#ffffff"},
                "",
                "color",
            ),
            ("PATCH", f"/v1/threads/{thread}", {"title": "old"}, {"title": "new"}, "", "title"),
            ("POST", urls, {"access": "public"}, {"access": "private"}, "", "access"),
            ("POST", "/v1/dev-urls", {"access": "public"}, {"access": "private"}, "", "access"),
            (
                "PATCH",
                f"/v1/people/{ann.user_id}",
                {"operator": False},
                {"operator": True},
                "/v1/people",
                "operator",
            ),
            ("PATCH", limits, {"sandboxes": 7}, {"sandboxes": 9}, "", "sandboxes"),
        ):
            told = await self.again(
                any_world, monkeypatch, (method, path, lost), (method, path, then)
            )
            shown = await org.ask("GET", read or path)
            if isinstance(shown, list):
                (shown,) = [
                    one for one in shown if ann.user_id in (one.get("id"), one.get("userId"))
                ]
            if path == limits:
                told, shown = told["limits"], shown["limits"]
            ((_, old),), ((_, new),) = lost.items(), then.items()
            assert (told[field], shown[field]) == (old, new), path

    async def test_a_policy_that_was_set_since_stays_and_the_host_has_it(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is in force only when the host has it, so a repeat asks the host and no more."""
        box = (await any_world.create())["id"]
        path, http = f"/v1/sandboxes/{box}/egress", any_world.http
        headers, order = {"Idempotency-Key": "k"}, any_world.host.machines[box]
        older, newer = {"allow": ["old.org"]}, {"allow": ["new.org"]}
        any_world.host.unavailable = True
        answer = await http.patch(path, json=older, headers=headers)
        assert answer.status_code == 503
        any_world.host.unavailable = False
        first = await http.patch(path, json=older, headers=headers)
        assert first.json()["data"]["allow"] == order.order.egress.allow == ["old.org"]
        again = await http.patch(path, json=older, headers=headers)
        assert again.headers["idempotency-replayed"] == "true"

        def dies(*_: Any) -> None:
            raise ZeroDivisionError

        headers = {"Idempotency-Key": "other"}
        with monkeypatch.context() as patch:
            patch.setattr(audit, "reach", dies)
            assert (await http.patch(path, json=older, headers=headers)).status_code == 500
        assert (await http.patch(path, json=newer)).status_code == 200
        again = await http.patch(path, json=older, headers=headers)
        assert again.json()["data"]["allow"] == ["old.org"]
        assert (await http.get(path)).json()["data"]["allow"] == ["new.org"]
        assert order.order.egress.allow == ["new.org"]
        final = await http.patch(path, json=older, headers=headers)
        assert final.json()["data"] == again.json()["data"]

    async def test_what_was_made_since_stays(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is taken away by its name, and made anew by somebody else."""
        http, public = any_world.http, {"label": "laptop", "publicKey": public_key("laptop")}
        for collection, name, body in (
            ("/v1/projects", "one", {"name": "one"}),
            ("/v1/ssh-keys", "laptop", public),
            ("/v1/model-endpoints", "mine", {"slug": "mine", "url": "https://1.1.1.1/v1"}),
        ):
            assert (await http.post(collection, json=body)).status_code == 201
            told = await self.again(
                any_world,
                monkeypatch,
                ("DELETE", f"{collection}/{name}", None),
                ("POST", collection, body),
            )
            listed = (await http.get(collection)).json()["data"]
            assert [one["id"] for one in listed if one["id"] == told["id"]] == [], collection
            there = [
                one
                for one in listed
                if name in (one.get("name"), one.get("label"), one.get("slug"))
            ]
            assert len(there) == 1, collection


class TestDisconnects:
    async def test_what_a_caller_left_behind_is_finished(self, world: World) -> None:
        world.host.gate.clear()
        gone = asyncio.create_task(post(world, "/v1/sandboxes", "k1", {"name": "left"}))
        await holds(lambda: any(call[0].startswith("create") for call in world.host.calls))
        gone.cancel()
        world.host.gate.set()
        await world.becomes("left", state="running")
        again = await post(world, "/v1/sandboxes", "k1", {"name": "left"})
        assert again.json()["data"]["id"] == (await world.get("left"))["id"]
