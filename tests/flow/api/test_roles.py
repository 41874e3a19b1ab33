"""What people may do: by their role in the org that their session acts in, at every moment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runtools.platform.api.members import store as members
from runtools.platform.kit.clock import SystemClock
from runtools.testing.api_world import World, holds


class TestRoles:
    async def test_a_member_works_and_does_not_rule(self, any_world: World) -> None:
        ann = await any_world.person("member")
        async with ann.http as http:
            me = (await http.get("/v1/me")).json()["data"]
            assert (me["kind"], me["role"], me["keyId"]) == ("session", "member", None)
            assert me["user"] == {"id": ann.user_id, "email": "ann@example.org", "name": "ann"}
            made = await http.post("/v1/sandboxes", json={})
            assert made.status_code == 201
            path = f"/v1/sandboxes/{made.json()['data']['id']}/exec"
            assert (await http.post(path, json={"command": "true"})).status_code == 200
            secret = {"name": "A", "value": "x"}
            assert (await http.post("/v1/secrets", json=secret)).status_code == 201
            for method, where, needed in (
                ("POST", "/v1/secrets/A/reveal", "secret:reveal"),
                ("POST", "/v1/webhooks", "webhook:write"),
                ("GET", "/v1/audit", "audit:read"),
                ("GET", "/v1/hosts", "platform:read"),
            ):
                refused = await http.request(method, where)
                assert refused.status_code == 403, where
                assert refused.json()["error"]["details"]["needed"] == needed

    async def test_a_member_makes_no_key_of_an_admin_and_ends_none(self, world: World) -> None:
        first = (await world.http.get("/v1/me")).json()["data"]["keyId"]
        ann = await world.person("member")
        async with ann.http as http:
            for scopes in ([], ["*"], ["org:write"], ["platform:*"]):
                body = {"name": "k", "scopes": scopes}
                assert (await http.post("/v1/api-keys", json=body)).status_code == 403, scopes
            body = {"name": "k", "scopes": ["sandbox:*"]}
            made = await http.post("/v1/api-keys", json=body)
            assert made.status_code == 201
            assert made.json()["data"]["createdBy"] == ann.user_id
            assert (await http.delete(f"/v1/api-keys/{first}")).status_code == 403
            assert (await http.post(f"/v1/api-keys/{first}/rotate")).status_code == 403
        assert (await world.http.get("/v1/me")).status_code == 200

    async def test_what_a_person_did_has_the_persons_name(self, world: World) -> None:
        ann = await world.person("member")
        async with ann.http as http:
            made = (await http.post("/v1/sandboxes", json={})).json()["data"]["id"]
        lines = (await world.http.get(f"/v1/audit?actor={ann.user_id}")).json()["data"]
        assert [line["action"] for line in lines] == ["sandboxes.create"]
        assert {entry["actor"] for entry in await world.why(made)} >= {ann.user_id}

    async def test_who_is_in_no_org_may_look_at_itself_alone(self, world: World) -> None:
        lone = await world.person(None)
        async with lone.http as http:
            me = (await http.get("/v1/me")).json()["data"]
            assert (me["orgId"], me["scopes"], me["role"]) == (None, [], None)
            for path in ("/v1/sandboxes", "/v1/events", "/v1/api-keys"):
                answer = await http.get(path)
                assert answer.status_code == 403, path
                assert "no organisation" in answer.json()["error"]["message"]
            made = await http.post("/v1/sandboxes", json={}, headers={"Idempotency-Key": "a"})
            assert made.status_code == 403


class TestEnds:
    async def test_a_removed_member_has_no_right_within_a_second(self, any_world: World) -> None:
        ann = await any_world.person("admin")
        async with ann.http as http, http.stream("GET", "/v1/events?after=0") as stream:
            events = stream.aiter_bytes()
            assert await anext(events)
            assert (await http.get("/v1/sandboxes")).status_code == 200
            db = any_world.platform.db
            await db.write(members.remove, any_world.org, ann.user_id)

            async def closed() -> bool:
                return (await http.get("/v1/sandboxes")).status_code == 403

            await holds(closed, 1.5)
            async for _ in events:
                pass  # it ends

    async def test_a_demoted_one_loses_what_the_role_had(self, any_world: World) -> None:
        ann = await any_world.person("admin")
        async with ann.http as http:
            assert (await http.get("/v1/audit")).status_code == 200
            db = any_world.platform.db
            await db.write(members.set_role, any_world.org, ann.user_id, "member")

            async def closed() -> bool:
                return (await http.get("/v1/audit")).status_code == 403

            await holds(closed, 1.5)
            assert (await http.get("/v1/sandboxes")).status_code == 200

    @pytest.mark.parametrize("ahead", [timedelta(hours=168, seconds=1), timedelta(days=31)])
    async def test_a_session_ends_unused_and_in_any_case(
        self, world: World, ahead: timedelta
    ) -> None:
        ann = await world.person()
        async with ann.http as http:
            assert (await http.get("/v1/me")).status_code == 200
            clock = Later()
            clock.ahead = ahead
            world.platform.door._clock = clock
            answer = await http.get("/v1/me")
            assert answer.status_code == 401
            assert "runtools login" in answer.json()["error"]["hint"]

    async def test_one_that_is_used_goes_on(self, any_world: World) -> None:
        ann = await any_world.person()
        async with ann.http as http:
            clock = Later()
            any_world.platform.door._clock = clock
            for days in (5, 10, 15):
                clock.ahead = timedelta(days=days)
                assert (await http.get("/v1/me")).status_code == 200, days
                await any_world.platform.door.write_uses()


class TestOperator:
    async def test_the_whole_machine_is_the_operators(self, world: World) -> None:
        made = await world.http.post("/v1/api-keys", json={"name": "org key"})
        assert made.status_code == 201
        async with await world.stranger() as stranger:
            for path in ("/v1/hosts", "/v1/disk"):
                assert (await stranger.get(path)).status_code == 403
                assert (await world.http.get(path)).status_code == 200
            assert (await stranger.post("/v1/prune", json={})).status_code == 403
            for scopes in (["platform:*"], ["platform:read"], ["*", "platform:write"]):
                body = {"name": "k", "scopes": scopes}
                assert (await stranger.post("/v1/api-keys", json=body)).status_code == 403

    async def test_the_operator_makes_a_key_that_only_looks(self, world: World) -> None:
        body = {"name": "monitoring", "scopes": ["platform:read"]}
        key = (await world.http.post("/v1/api-keys", json=body)).json()["data"]["key"]
        headers = {"Authorization": f"Bearer {key}"}
        assert (await world.http.get("/v1/hosts", headers=headers)).status_code == 200
        assert (await world.http.post("/v1/prune", headers=headers)).status_code == 403
        assert (await world.http.get("/v1/sandboxes", headers=headers)).status_code == 403

    async def test_a_person_can_be_it(self, world: World) -> None:
        root = await world.person("member", operator=True)
        async with root.http as http:
            assert (await http.get("/v1/hosts")).status_code == 200
            assert (await http.get("/v1/audit")).status_code == 403


class Later(SystemClock):
    """A clock that can be put forward."""

    ahead = timedelta()

    def now(self):
        return super().now() + self.ahead
