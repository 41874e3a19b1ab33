"""What is wanted and what is seen are brought together again, whatever was lost in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta

import pytest

from runtools.errors import GuestUnreachable
from runtools.platform.api import reconcile
from runtools.platform.api.hosts import follow
from runtools.platform.api.sandboxes import observe, store
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.core.ports.host import Observed
from runtools.platform.kit.db import Transaction
from runtools.testing.api_world import HOST_ID, World, holds


async def leave(world: World) -> None:
    """The host goes away, and the api has noticed."""
    await world.host.leave()
    await holds(lambda: HOST_ID in world.platform.away)


async def repair(world: World) -> None:
    """One round of the reconcile loop, of everything however young."""
    await reconcile.repair(world.platform, timedelta(seconds=-1))
    await reconcile.find_lost(world.platform, set())


async def missed(world: World) -> list[str]:
    """Sandboxes of which a report was passed over and nothing newer taken in."""
    found = await world.platform.db.read(store.unseen_in, HOST_ID, world.host.epoch)
    return [record.id for record in found if record.missed_seq is not None]


class TestHostAway:
    async def test_nothing_is_begun_on_it(self, world: World) -> None:
        await leave(world)
        for path in ("/v1/sandboxes", "/v1/templates/base-debian/builds"):
            answer = await world.http.post(path, json={})
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "host_unavailable"
        world.host.unavailable = False
        assert (await world.create())["templateVersion"] == 1
        assert len((await world.http.get("/v1/sandboxes")).json()["data"]) == 1

    async def test_a_destroy_is_done_when_it_is_back(self, world: World) -> None:
        made = await world.create()
        await leave(world)
        answer = await world.http.delete(f"/v1/sandboxes/{made['id']}")
        assert answer.status_code == 503
        assert (await world.get(made["id"]))["state"] == "running"
        world.host.unavailable = False
        await repair(world)
        await world.becomes(made["id"], state="stopped")

    async def test_reports_missed_meanwhile_are_read(self, world: World) -> None:
        made = await world.create()
        await leave(world)
        await world.host.die(made["id"], "died alone")
        world.host.unavailable = False
        shown = await world.becomes(made["id"], state="stopped")
        assert shown["ending"]["reason"] == "died alone"

    async def test_a_lost_answer_is_waited_for(self, world: World) -> None:
        world.host.lose_answer()
        assert (await world.create())["state"] == "running"
        assert len(world.host.machines) == 1


class TestLost:
    async def test_one_that_the_host_has_forgotten_is_stopped(self, any_world: World) -> None:
        made = await any_world.create()
        kept = await any_world.create()
        await any_world.http.post(f"/v1/sandboxes/{made['id']}/snapshots", json={})
        any_world.host.forget(made["id"])
        await any_world.host.restart()
        await any_world.host.die(kept["id"], "so that the new epoch is seen")
        await any_world.becomes(kept["id"], state="stopped")
        path = f"/v1/sandboxes/{made['id']}/snapshots"
        assert len((await any_world.http.get(path)).json()["data"]) == 1
        await repair(any_world)
        shown = await any_world.becomes(made["id"], state="stopped")
        assert shown["ending"]["cause"] == "host_restart"
        # Nobody can go back to what was kept of it: it is not shown, and counts no more.
        assert (await any_world.http.get(path)).json()["data"] == []
        assert (await any_world.http.get("/v1/limits")).json()["data"]["used"]["snapshots"] == 0

    async def test_a_destroy_of_one_forgotten_is_done(self, world: World) -> None:
        made = await world.create()
        await world.http.post(f"/v1/sandboxes/{made['id']}/snapshots", json={})
        world.host.forget(made["id"])
        gone = await world.http.delete(f"/v1/sandboxes/{made['id']}")
        assert gone.json()["data"]["state"] == "stopped"
        assert gone.json()["data"]["ending"]["cause"] == "request"
        kept = await world.http.get(f"/v1/sandboxes/{made['id']}/snapshots")
        assert kept.json()["data"] == []

    async def test_one_whose_report_was_passed_over_is_asked_for(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await world.create()
        await world.heard()

        def unfit(conn: Transaction, observed: Observed) -> Record | None:
            raise ValueError("it does not fit")

        monkeypatch.setattr(follow, "_LONGEST_PAUSE", 0.01)
        with monkeypatch.context() as patch:
            patch.setattr(follow, "observe", unfit)
            await world.host.restart()
            await world.host.die(made["id"], "nobody hears of it")
            await world.heard()
        found = await world.platform.db.read(store.get, made["id"])
        assert found is not None
        # By the row: no restart forgets it. (The loop itself may have found it by now.)
        assert found.missed_seq is not None or found.state == "stopped"
        await reconcile.find_lost(world.platform, set())  # as the loop does every other second
        shown = await world.get(made["id"])
        assert shown["ending"]["reason"] == "nobody hears of it"

    async def test_so_is_one_in_the_epoch_that_its_row_is_of(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world, platform = any_world, any_world.platform
        made = await world.create()
        await world.heard()

        def unfit(conn: Transaction, observed: Observed) -> Record | None:
            raise ValueError("it does not fit")

        monkeypatch.setattr(follow, "_LONGEST_PAUSE", 0.01)
        with monkeypatch.context() as patch:
            patch.setattr(follow, "observe", unfit)
            await world.host.die(made["id"], "nobody hears of it")
            await world.heard()

        async def found() -> bool:
            await reconcile.find_lost(platform, set())  # as the loop does, perhaps at this moment
            return bool((await world.get(made["id"]))["state"] == "stopped")

        await holds(found)
        assert (await world.get(made["id"]))["ending"]["reason"] == "nobody hears of it"
        assert not await missed(world)

    async def test_one_of_which_nothing_fits_is_asked_for_once_and_others_not_kept(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        odd, plain = await world.create(), await world.create()
        await world.heard()
        real = observe.observe

        def unfit(conn: Transaction, observed: Observed) -> Record | None:
            if observed.sandbox_id == odd["id"]:
                raise ValueError("it does not fit")
            return real(conn, observed)

        monkeypatch.setattr(observe, "observe", unfit)
        for box in (odd, plain):
            await world.platform.db.write(store.miss, box["id"], (2**40, 7))
        asked: set[tuple[str, int, int | None]] = set()
        await reconcile.find_lost(world.platform, asked)
        assert odd["id"] in {one for one, *_ in asked}
        assert await missed(world) == [odd["id"]]
        says = f"says of {odd['id']} cannot be taken in"
        await holds(lambda: says in caplog.text)
        count = caplog.text.count(says)
        await reconcile.find_lost(world.platform, asked)
        assert caplog.text.count(says) <= count + 1  # once more by the platform's own loop at most

    async def test_where_its_host_does_not_answer_it_is_asked_for_later(self, world: World) -> None:
        made = await world.create()
        await world.heard()
        await leave(world)
        await world.platform.db.write(store.miss, made["id"], (2**40, 7))
        asked: set[tuple[str, int, int | None]] = set()
        await reconcile.find_lost(world.platform, asked)
        assert not asked
        assert await missed(world) == [made["id"]]

    async def test_what_was_told_since_is_in_no_doubt(self, any_world: World) -> None:
        db, made = any_world.platform.db, await any_world.create()
        await any_world.heard()
        now = await db.read(store.get, made["id"])
        assert now is not None
        await db.write(store.miss, made["id"], (now.epoch, now.seq))
        assert await missed(any_world) == []
        await db.write(store.miss, made["id"], (now.epoch, now.seq + 1))
        await any_world.http.post(f"/v1/sandboxes/{made['id']}/pause")
        await any_world.heard()
        assert await missed(any_world) == []

    async def test_those_that_live_on_stay(self, world: World) -> None:
        made = await world.create()
        await world.host.restart()
        await repair(world)
        assert (await world.get(made["id"]))["state"] == "running"

    async def test_one_that_no_record_knows_is_left_alone(self, world: World) -> None:
        made = await world.create()
        seen = world.host.machines[made["id"]].latest
        assert seen is not None
        ghost = seen.model_copy(update={"sandbox_id": "sandbox-000000000000", "seq": 99})
        await follow.take_in(world.platform, HOST_ID, ghost)
        assert len((await world.http.get("/v1/sandboxes")).json()["data"]) == 1


class TestOrder:
    async def observe(self, world: World, old: Observed, **changed: object) -> None:
        await follow.take_in(world.platform, HOST_ID, old.model_copy(update=changed))

    async def test_one_that_never_fits_is_passed_over_and_said_to_be(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        odd, plain = await any_world.create(), await any_world.create()
        real, tried = follow.observe, []

        def observe(conn: Transaction, observed: Observed) -> Record | None:
            if observed.sandbox_id == odd["id"]:
                tried.append(observed.seq)
                raise ValueError("it does not fit")
            return real(conn, observed)

        monkeypatch.setattr(follow, "_LONGEST_PAUSE", 0.01)
        with monkeypatch.context() as patch:
            patch.setattr(follow, "observe", observe)
            await any_world.host.die(odd["id"], "nobody hears of it")
            await any_world.host.die(plain["id"], "heard of")
            await any_world.becomes(plain["id"], state="stopped")
        assert len(tried) == 5
        assert len(set(tried)) == 1
        assert f"that {odd['id']} is stopped, is passed over" in caplog.text
        told = any_world.platform.meters.told()
        (counted,) = [one for one in told if one.name == "runtools_reports_passed_over"]
        assert [sample.value for sample in counted.samples if sample.name.endswith("_total")] == [1]

    async def test_how_long_it_ran_is_counted_though_nothing_else_of_it_is(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It paused by a report that nobody can take in, and went on by one that anybody can."""
        world, clock = any_world, any_world.platform.clock
        made = await world.create()
        await world.heard()
        real = follow.observe

        def observe(conn: Transaction, observed: Observed) -> Record | None:
            if observed.state == "paused":
                raise ValueError("it does not fit")
            return real(conn, observed)

        monkeypatch.setattr(follow, "observe", observe)
        monkeypatch.setattr(follow, "_LONGEST_PAUSE", 0.01)
        machine = world.host.machines[made["id"]]
        assert machine.latest is not None
        at = machine.latest.at
        now = machine.latest
        for hours, state in ((1, "paused"), (3, "running"), (4, "paused")):
            later = {"at": at + timedelta(hours=hours), "state": state, "seq": now.seq + hours}
            seen = now.model_copy(update=later)
            tries: Counter[tuple[int, int]] = Counter({(seen.epoch, seen.seq): 9})
            await follow._take_in_or_over(world.platform, HOST_ID, seen, tries)
        answer = await world.http.get("/v1/usage", params=_period(at, clock.now(), days=1))
        assert [row["runningMs"] for row in answer.json()["data"]] == [2 * 3_600_000]

    async def test_older_reports_are_ignored(self, any_world: World) -> None:
        made = await any_world.create()
        now = any_world.host.machines[made["id"]].latest
        assert now is not None
        await self.observe(any_world, now, seq=now.seq + 10, state="paused")
        await self.observe(any_world, now, seq=now.seq + 9, state="running")
        assert (await any_world.get(made["id"]))["state"] == "paused"
        await self.observe(any_world, now, epoch=0, seq=now.seq + 99, state="running")
        assert (await any_world.get(made["id"]))["state"] == "paused"
        await self.observe(any_world, now, epoch=now.epoch + 1, seq=1, state="running")
        assert (await any_world.get(made["id"]))["state"] == "running"

    async def test_a_report_counts_once(self, any_world: World) -> None:
        made = await any_world.create()
        now = any_world.host.machines[made["id"]].latest
        assert now is not None
        for _ in range(3):
            await self.observe(any_world, now, seq=now.seq + 10, state="paused")
        assert len(await any_world.why(made["id"])) == 3

    async def test_late_news_gets_its_line_and_no_event(self, any_world: World) -> None:
        made = await any_world.create()
        now = any_world.host.machines[made["id"]].latest
        assert now is not None
        await self.observe(any_world, now, seq=now.seq + 10, state="paused")
        late = {"seq": now.seq + 5, "operation": "pausing"}
        await self.observe(any_world, now, **late)
        await self.observe(any_world, now, **late)
        lines = await any_world.why(made["id"])
        assert [line["operation"] for line in lines] == ["starting", None, None, "pausing"]
        shown = await any_world.get(made["id"])
        assert (shown["state"], shown["operation"]) == ("paused", None)

    async def test_the_stopped_stay_stopped(self, any_world: World) -> None:
        made = await any_world.create()
        await any_world.http.delete(f"/v1/sandboxes/{made['id']}")
        machine = any_world.host.machines[made["id"]]
        now = machine.latest
        assert now is not None
        machine.state = machine.state.RUNNING
        risen = {"seq": now.seq + 10, "state": "running", "ending": None}
        await self.observe(any_world, now, **risen)
        assert (await any_world.get(made["id"]))["state"] == "stopped"
        await repair(any_world)
        await holds(lambda: machine.state == "stopped")

    async def test_moves_of_the_queue_alone_are_no_moves(self, world: World) -> None:
        world.host.capacity = 0
        made = await world.create(waitForReady=False)
        queued = await world.becomes(made["id"], operation="queued")
        assert queued["queue"]["position"] == 1
        before = len(await world.why(made["id"]))
        now = world.host.machines[made["id"]].latest
        assert now is not None
        assert now.queue is not None
        place = now.queue.model_copy(update={"position": 7})
        await self.observe(world, now, seq=now.seq + 1, queue=place)
        assert (await world.get(made["id"]))["queue"]["position"] == 7
        assert len(await world.why(made["id"])) == before


class TestForks:
    async def test_one_of_which_some_children_were_seen_is_asked_for_as_a_whole(
        self, any_world: World
    ) -> None:
        """As after an end of the api between the first reports of two children."""
        world = any_world
        parent = await world.create()
        world.host.births.clear()
        path, body = f"/v1/sandboxes/{parent['id']}/fork", {"count": 2, "name": "kid"}
        forking = asyncio.create_task(world.http.post(path, json=body))
        for name in ("kid-1", "kid-2"):
            await holds(lambda name=name: _taken_up(world, name))
        unseen = {"epoch": -1, "seq": -1, "wish_open": True}
        kid = (await world.get("kid-2"))["id"]

        async def asked_again() -> bool:
            """Once nothing on its way says how it is; asked more than once, it is one fork."""
            await world.platform.db.write(store.change, kid, unseen)
            world.platform.asking.clear()
            await repair(world)
            return [name.split()[0] for name, _ in world.host.calls].count("fork") >= 2

        await holds(asked_again)
        world.host.births.set()
        children = (await forking).json()["data"]["children"]
        assert [child["state"] for child in children] == ["running", "running"]
        await world.becomes(kid, state="running")
        assert (await world.get("kid-1"))["state"] == "running"


async def _taken_up(world: World, name: str) -> bool:
    made = (await world.http.get(f"/v1/sandboxes/{name}")).json().get("data")
    return made is not None and made["operation"] == "starting"


class TestSnapshots:
    async def test_one_whose_answer_was_lost_is_found(self, world: World) -> None:
        made = await world.create()
        path = f"/v1/sandboxes/{made['id']}/snapshots"
        world.host.lose_answer()
        assert (await world.http.post(path, json={"name": "s"})).status_code == 503
        await repair(world)
        await holds(lambda: _count(world, path, 1))
        assert len(world.host.snapshots) == 1

    async def test_one_refused_never_was(self, world: World) -> None:
        made = await world.create()
        path = f"/v1/sandboxes/{made['id']}/snapshots"
        world.host.refuse(GuestUnreachable("silent"))
        assert (await world.http.post(path, json={"name": "s"})).status_code == 502
        assert (await world.http.post(path, json={"name": "s"})).status_code == 201


class TestWait:
    async def test_a_get_that_waits_is_woken_by_the_change(self, world: World) -> None:
        world.host.gate.clear()
        made = await world.create(waitForReady=False)
        url = f"/v1/sandboxes/{made['id']}?waitSeconds=30"
        waiting = asyncio.create_task(world.http.get(url))
        await asyncio.wait({waiting}, timeout=0.2)
        assert not waiting.done()
        world.host.gate.set()
        assert (await waiting).json()["data"]["state"] == "running"

    async def test_it_gives_up_in_time(self, world: World) -> None:
        world.host.gate.clear()
        made = await world.create(waitForReady=False)
        shown = await world.http.get(f"/v1/sandboxes/{made['id']}?waitSeconds=1")
        assert shown.json()["data"]["state"] == "creating"
        world.host.gate.set()


def _period(since: datetime, now: datetime, days: int) -> dict[str, str]:
    """From then on."""
    return {"from": since.isoformat(), "to": (now + timedelta(days=days)).isoformat()}


async def _count(world: World, path: str, wanted: int) -> bool:
    return len((await world.http.get(path)).json()["data"]) == wanted
