"""Egress policies through the api: written down, put in force, told again, inherited."""

from __future__ import annotations

import asyncio

import pytest

from runtools.platform.api import reconcile
from runtools.platform.api.sandboxes import store
from runtools.sdk.shapes.egress import Egress, EgressRefusal
from runtools.testing.api_world import World, holds

OPEN = {"internet": True, "allow": ["*"], "deny": []}


async def made(world: World, **wanted: object) -> str:
    return str((await world.create(**wanted))["id"])


class TestCreate:
    async def test_every_public_address_by_default(self, world: World) -> None:
        box = await made(world)
        answer = await world.http.get(f"/v1/sandboxes/{box}/egress")
        assert answer.json()["data"] == OPEN

    async def test_rules_reach_the_host_in_their_plain_form(self, world: World) -> None:
        rules = {"allow": ["B.org", "203.0.113.0/24"], "deny": ["*.evil.net"]}
        box = await made(world, egress=rules)
        order = world.host.machines[box].order
        assert order.egress.allow == ["203.0.113.0/24", "b.org"]
        assert order.egress.deny == ["*.evil.net"]
        assert order.internet

    async def test_internet_is_the_switch_over_them(self, world: World) -> None:
        box = await made(world, internet=False, egress={"allow": ["b.org"]})
        answer = await world.http.get(f"/v1/sandboxes/{box}/egress")
        assert answer.json()["data"] == {"internet": False, "allow": ["b.org"], "deny": []}

    @pytest.mark.parametrize(
        ("rules", "field"),
        [
            ({"allow": ["fine.org", "http://b.org/"]}, "egress.allow.1"),
            ({"deny": ["*"]}, "egress.deny.0"),
            ({"allow": ["1.2.3.4/99"]}, "egress.allow.0"),
            ({"allow": ["a.org"] * 513}, "egress.allow"),
            ({"allow": ["a" * 300]}, "egress.allow.0"),
            ({"allow": "a.org"}, "egress.allow"),
            ({"allow": [7]}, "egress.allow.0"),
            ({"permit": ["a.org"]}, "egress.permit"),
        ],
    )
    async def test_garbage_is_refused_by_place(
        self, world: World, rules: dict[str, object], field: str
    ) -> None:
        answer = await world.http.post("/v1/sandboxes", json={"egress": rules})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "invalid_request"
        assert error["details"]["fields"][0]["field"] == field
        assert world.host.machines == {}


class TestChange:
    async def test_what_is_given_changes_and_the_rest_stays(self, world: World) -> None:
        box = await made(world, egress={"allow": ["a.org"], "deny": ["b.org"]})
        path = f"/v1/sandboxes/{box}/egress"
        answer = await world.http.patch(path, json={"allow": ["C.org"]})
        assert answer.json()["data"] == {"internet": True, "allow": ["c.org"], "deny": ["b.org"]}
        answer = await world.http.patch(path, json={"internet": False})
        assert answer.json()["data"] == {"internet": False, "allow": ["c.org"], "deny": ["b.org"]}
        order = world.host.machines[box].order
        assert (order.internet, order.egress.allow) == (False, ["c.org"])
        shown = await world.http.get(f"/v1/sandboxes/{box}")
        assert shown.json()["data"]["internet"] is False

    async def test_a_paused_one_is_not_woken(self, world: World) -> None:
        box = await made(world)
        await world.http.post(f"/v1/sandboxes/{box}/pause")
        answer = await world.http.patch(f"/v1/sandboxes/{box}/egress", json={"allow": ["a.org"]})
        assert answer.status_code == 200
        shown = await world.http.get(f"/v1/sandboxes/{box}")
        assert shown.json()["data"]["state"] == "paused"

    async def test_garbage_changes_nothing(self, world: World) -> None:
        box = await made(world)
        path = f"/v1/sandboxes/{box}/egress"
        answer = await world.http.patch(path, json={"deny": ["fine.org", "not a name"]})
        assert answer.json()["error"]["details"]["fields"][0]["field"] == "deny.1"
        assert (await world.http.get(path)).json()["data"] == OPEN

    async def test_one_that_has_stopped_is_refused(self, world: World) -> None:
        box = await made(world)
        await world.http.delete(f"/v1/sandboxes/{box}")
        answer = await world.http.patch(f"/v1/sandboxes/{box}/egress", json={"internet": False})
        assert answer.json()["error"]["code"] == "sandbox_stopped"

    async def test_a_host_that_was_away_is_told_later(self, world: World) -> None:
        box = await made(world)
        world.host.unavailable = True
        answer = await world.http.patch(f"/v1/sandboxes/{box}/egress", json={"allow": ["a.org"]})
        assert answer.json()["error"]["code"] == "host_unavailable"
        assert world.host.machines[box].order.egress.allow == ["*"]
        world.host.unavailable = False
        await reconcile.reach_out(world.platform)
        await holds(lambda: world.host.machines[box].order.egress.allow == ["a.org"])

    async def test_a_host_that_keeps_us_waiting_is_asked_once(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        box = await made(world)
        asked, over = [], asyncio.Event()
        real = world.host.set_egress

        async def slowly(sandbox_id: str, generation: int, egress: Egress) -> None:
            asked.append(generation)
            await over.wait()
            await real(sandbox_id, generation, egress)

        monkeypatch.setattr(world.host, "set_egress", slowly)
        path = f"/v1/sandboxes/{box}/egress"
        changing = asyncio.ensure_future(world.http.patch(path, json={"allow": ["a.org"]}))
        await holds(lambda: len(asked) == 1)
        for _ in range(5):
            await reconcile.reach_out(world.platform)
            await asyncio.sleep(0)
        assert len(asked) == 1
        over.set()
        assert (await changing).status_code == 200
        assert await world.platform.db.read(store.open_egress, 10) == []

    async def test_what_a_host_has_of_a_lost_record_is_replaced(self, world: World) -> None:
        box = await made(world)
        newer = Egress(allow=["newer.org"])
        await world.host.set_egress(box, 7, newer)  # as it is after an older backup came back
        answer = await world.http.patch(f"/v1/sandboxes/{box}/egress", json={"allow": ["a.org"]})
        assert answer.json()["data"]["allow"] == ["a.org"]
        machine = world.host.machines[box]
        assert (machine.order.egress.allow, machine.egress_generation) == (["a.org"], 8)
        await world.http.patch(f"/v1/sandboxes/{box}/egress", json={"internet": False})
        assert (machine.order.internet, machine.egress_generation) == (False, 9)
        assert await world.platform.db.read(store.open_egress, 10) == []

    async def test_nobody_elses_is_seen(self, world: World) -> None:
        for path in ("egress", "egress/log"):
            answer = await world.http.get(f"/v1/sandboxes/sandbox-zzzzzzzzzzzz/{path}")
            assert answer.status_code == 404


class TestHeirs:
    async def test_a_child_of_a_fork_inherits(self, world: World) -> None:
        box = await made(world)
        await world.http.patch(f"/v1/sandboxes/{box}/egress", json={"allow": ["a.org"]})
        forked = await world.http.post(f"/v1/sandboxes/{box}/fork", json={})
        child = forked.json()["data"]["children"][0]["id"]
        answer = await world.http.get(f"/v1/sandboxes/{child}/egress")
        assert answer.json()["data"]["allow"] == ["a.org"]
        assert world.host.machines[child].order.egress.allow == ["a.org"]

    async def test_one_that_is_recovered_inherits(self, world: World) -> None:
        box = await made(world, egress={"allow": ["a.org"]})
        await world.host.die(box, "it broke")
        await world.becomes(box, state="stopped")
        answer = await world.http.post(f"/v1/sandboxes/{box}/recover", json={})
        heir = answer.json()["data"]["id"]
        assert world.host.machines[heir].order.egress.allow == ["a.org"]


async def test_the_log_is_what_the_host_kept(world: World) -> None:
    box = await made(world)
    now = world.host.clock.now()
    world.host.machines[box].refused.append(
        EgressRefusal(
            reason="not_allowed",
            protocol="dns",
            name="evil.net",
            address=None,
            port=None,
            count=3,
            first_at=now,
            last_at=now,
        )
    )
    answer = await world.http.get(f"/v1/sandboxes/{box}/egress/log")
    data = answer.json()["data"]
    assert data["forgotten"] == 0
    assert [(one["name"], one["count"]) for one in data["refusals"]] == [("evil.net", 3)]
