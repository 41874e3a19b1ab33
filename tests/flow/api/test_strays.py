"""Sandboxes that no record bears are paused, kept, told of, and given a record or ended by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtools.errors import Conflict, NotFound
from runtools.platform.api import reconcile
from runtools.platform.api.hosts import strays
from runtools.platform.boot import strays as command
from runtools.platform.core.ids import new_sandbox_id
from runtools.platform.core.ports.host import CreateOrder
from runtools.platform.host.server import serving
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.sdk.shapes.egress import Egress
from runtools.testing import api_world
from runtools.testing.api_world import HOST_ID, World
from runtools.testing.made_once import sqlite_url


async def stray(world: World, **changed: object) -> CreateOrder:
    """A sandbox on the host whose record is lost: what a backup from before it makes of it."""
    made = await world.create()
    known = await world.host.order(made["id"])
    guest = known.guest.model_copy(update={"env": {"A": "b"}})
    fresh = {"sandbox_id": new_sandbox_id(), "op": "opn_lost", "guest": guest, **changed}
    order = known.model_copy(update=fresh)
    await world.host.create(order)
    return order


async def adopt(world: World, sandbox_id: str, org_id: str | None = None) -> None:
    platform = world.platform
    now = platform.clock.now()
    await strays.adopt(platform.db, platform.vault, platform.hosts, sandbox_id, org_id, now)


class TestWatch:
    async def test_one_that_runs_is_paused_and_kept(self, any_world: World) -> None:
        order = await stray(any_world)
        await strays.watch(any_world.platform)
        await strays.watch(any_world.platform)
        seen = any_world.host.machines[order.sandbox_id].latest
        assert seen is not None
        assert (seen.state, seen.actor) == ("paused", "platform")
        assert [s for _, s in any_world.host.calls if s == order.sandbox_id].count(
            order.sandbox_id
        ) == 2  # its create and one pause

    async def test_those_with_a_record_are_left_alone(self, any_world: World) -> None:
        made = await any_world.create()
        await strays.watch(any_world.platform)
        assert (await any_world.get(made["id"]))["state"] == "running"
        assert any_world.platform.strays == {HOST_ID: []}

    async def test_health_says_so_until_a_record_is_there_again(self, any_world: World) -> None:
        order = await stray(any_world)
        await strays.watch(any_world.platform)
        [warning] = await _warnings(any_world)
        assert order.sandbox_id in warning
        assert "runtools strays" in warning
        await adopt(any_world, order.sandbox_id)
        await strays.watch(any_world.platform)
        assert await _warnings(any_world) == []

    async def test_the_loop_looks_by_itself(self, any_world: World) -> None:
        order = await stray(any_world)
        await reconcile.sweep(any_world.platform)
        assert any_world.host.machines[order.sandbox_id].state == "paused"


class TestAdopt:
    async def test_it_is_a_sandbox_like_others(self, any_world: World) -> None:
        order = await stray(any_world)
        await strays.watch(any_world.platform)
        await adopt(any_world, order.sandbox_id)
        shown = await any_world.get(order.sandbox_id)
        assert (shown["state"], shown["envNames"], shown["name"]) == ("paused", ["A"], None)
        ran = await any_world.http.post(
            f"/v1/sandboxes/{order.sandbox_id}/exec", json={"command": "echo $A"}
        )
        assert ran.json()["data"]["stdout"] == "b\n"
        assert (await any_world.why(order.sandbox_id))[0]["cause"] == "request"
        gone = await any_world.http.delete(f"/v1/sandboxes/{order.sandbox_id}")
        assert gone.json()["data"]["state"] == "stopped"

    async def test_its_egress_policy_can_be_changed(self, any_world: World) -> None:
        order = await stray(any_world)
        await any_world.host.set_egress(order.sandbox_id, 3, Egress(allow=["a.org"]))
        await adopt(any_world, order.sandbox_id)
        path = f"/v1/sandboxes/{order.sandbox_id}/egress"
        assert (await any_world.http.get(path)).json()["data"]["allow"] == ["a.org"]
        await any_world.http.patch(path, json={"internet": False})
        assert any_world.host.machines[order.sandbox_id].order.internet is False

    async def test_another_org_may_have_one_on_the_platforms_template(
        self, any_world: World
    ) -> None:
        other = await any_world.stranger()
        made = (await other.post("/v1/sandboxes", json={})).json()["data"]
        org_id = (await other.get("/v1/org")).json()["data"]["id"]
        known = await any_world.host.order(made["id"])
        order = known.model_copy(update={"sandbox_id": new_sandbox_id(), "op": "opn_lost"})
        await any_world.host.create(order)
        await strays.watch(any_world.platform)
        await any_world.host.hand_over(order.sandbox_id, "org_former")
        await adopt(any_world, order.sandbox_id, org_id)
        assert (await any_world.get(order.sandbox_id, other))["state"] == "paused"
        # What the host has for all is shared out by whose it is now.
        assert (await any_world.host.order(order.sandbox_id)).org_id == org_id
        # What the first org has built for itself is nobody else's.
        mine = await any_world.build("mine", recipe="base-debian", apt=["git"])
        order = known.model_copy(
            update={
                "sandbox_id": new_sandbox_id(),
                "op": "opn_more",
                "org_id": any_world.org,
                "template_version_id": mine["id"],
            }
        )
        await any_world.host.create(order)
        whose = (await any_world.host.order(order.sandbox_id)).org_id
        with pytest.raises(Conflict, match=mine["id"]):
            await adopt(any_world, order.sandbox_id, org_id)
        assert (await any_world.host.order(order.sandbox_id)).org_id == whose != org_id
        await other.aclose()

    async def test_without_its_template_it_is_refused_and_kept(self, any_world: World) -> None:
        order = await stray(any_world, template_version_id="tpl_forgotten")
        await strays.watch(any_world.platform)  # before the loop does
        with pytest.raises(Conflict, match="tpl_forgotten"):
            await adopt(any_world, order.sandbox_id)
        assert any_world.host.machines[order.sandbox_id].state == "paused"

    async def test_only_strays_are(self, any_world: World) -> None:
        made = await any_world.create()
        for sandbox_id in (made["id"], "sandbox-000000000000"):
            with pytest.raises(NotFound):
                await adopt(any_world, sandbox_id)

    async def test_into_no_org_that_is_not_there(self, any_world: World) -> None:
        order = await stray(any_world)
        with pytest.raises(NotFound):
            await adopt(any_world, order.sandbox_id, "org_nobody")


class TestCommand:
    async def test_lists_adopts_and_destroys(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        url = sqlite_url(tmp_path)
        settings = Settings(home=tmp_path, database_url=url)
        settings.host_socket.parent.mkdir(parents=True, exist_ok=True)
        async with (
            api_world.world(Database(url), tmp_path) as world,
            serving(world.host, settings.host_socket),
        ):
            first = (await stray(world)).sandbox_id
            second = (await stray(world, op="opn_other")).sandbox_id
            await strays.watch(world.platform)  # before the loop does
            await command.serve(settings, "list", None, None)
            assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
                first,
                second,
            ]
            await command.serve(settings, "adopt", first, None)
            assert (await world.get(first))["state"] == "paused"
            await command.serve(settings, "destroy", second, None)
            assert world.host.machines[second].state == "stopped"
            capsys.readouterr()
            await command.serve(settings, "list", None, None)
            assert capsys.readouterr().out == ""
            for act in ("adopt", "destroy"):
                with pytest.raises(NotFound):
                    await command.serve(settings, act, first, None)


async def _warnings(world: World) -> list[str]:
    answer = await world.http.get("/readyz")
    return [said for said in answer.json()["data"]["warnings"] if "no record" in said]
