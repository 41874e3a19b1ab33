"""The life of sandboxes through the api."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtools.errors import CapacityExhausted, IsolationUnavailable
from runtools.platform.api.guests import store as guests
from runtools.platform.api.hosts import follow
from runtools.platform.api.sandboxes import settle
from runtools.platform.core.ids import new_sandbox_id
from runtools.platform.core.ports.host import Guest
from runtools.testing.api_world import World, client


class TestCreate:
    async def test_it_runs_and_says_where_from(self, any_world: World) -> None:
        made = await any_world.create(name="one", tags={"team": "blue"}, env={"A": "1"})
        assert made["state"] == "running"
        assert made["operation"] is None
        assert made["startedFrom"] == "warm"
        assert made["timings"]["totalMs"] == 2.0
        assert made["envNames"] == ["A"]
        assert made["template"] == "base-debian"
        assert made["templateVersion"] == 1
        assert await any_world.get("one") == made

    async def test_the_host_knows_whose_it_is(self, world: World) -> None:
        made = await world.create()
        assert (await world.host.order(made["id"])).org_id == world.org

    async def test_ledger_tells_every_move(self, any_world: World) -> None:
        made = await any_world.create()
        lines = await any_world.why(made["id"])
        assert [(line["state"], line["operation"]) for line in lines] == [
            ("creating", "starting"),
            ("running", None),
        ]
        assert lines[0]["actor"] == lines[1]["actor"]
        assert lines[0]["actor"].startswith("key_")

    async def test_without_waiting_it_answers_at_once(self, world: World) -> None:
        world.host.gate.clear()
        made = await world.create(waitForReady=False)
        assert made["state"] == "creating"
        world.host.gate.set()
        shown = await world.http.get(f"/v1/sandboxes/{made['id']}?waitSeconds=30")
        assert shown.json()["data"]["state"] == "running"

    async def test_beyond_capacity_it_queues_with_its_place(self, world: World) -> None:
        world.host.capacity = 1
        first = await world.create()
        async with asyncio.timeout(30):  # and who waits for it to run is told that at once
            made = await world.create()
        assert made["queue"] == {"position": 1, "estimatedWaitSeconds": 1.0}
        assert (made["state"], made["operation"]) == ("creating", "queued")
        await world.http.delete(f"/v1/sandboxes/{first['id']}")
        assert (await world.becomes(made["id"], state="running"))["queue"] is None

    async def test_beyond_capacity_it_is_refused_when_asked_to(self, world: World) -> None:
        world.host.capacity = 0
        answer = await world.http.post("/v1/sandboxes", json={"queue": False, "name": "full"})
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert error["code"] == "capacity_exhausted"
        world.host.capacity = 1
        assert (await world.create(name="full"))["state"] == "running"
        why = await world.why(error["details"]["sandboxId"])
        assert why[-1]["cause"] == "start_failed"

    async def test_a_refusal_is_the_answer(self, world: World) -> None:
        world.host.refuse(IsolationUnavailable("only emulation here", hint="ask for less"))
        answer = await world.http.post("/v1/sandboxes", json={"requireIsolation": "hardware"})
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "isolation_unavailable"
        assert answer.json()["error"]["hint"] == "ask for less"

    async def test_a_password_is_never_kept_nor_shown(self, world: World) -> None:
        made = await world.create(password="correct horse battery")
        guest = world.host.machines[made["id"]].order.guest
        assert guest.password_hash is not None
        assert guest.password_hash.startswith("$6$")
        assert "horse" not in str(made)
        database = world.platform.settings.home / "db" / "runtools.db"
        kept = database.read_bytes() + database.with_name("runtools.db-wal").read_bytes()
        assert b"correct horse" not in kept
        assert guest.password_hash.encode() not in kept

    async def test_keys_and_environment_reach_the_guest(self, world: World) -> None:
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2VXk4Ee2zlY6pO5O4Vz0zZ1zvQbq6sVWx4P3vYwz9k me"
        made = await world.create(sshKeys=[key], env={"A": "b"})
        guest = world.host.machines[made["id"]].order.guest
        assert guest.ssh_keys == [key]
        assert guest.env == {"A": "b"}

    async def test_names_are_unique_among_the_living(self, any_world: World) -> None:
        first = await any_world.create(name="same")
        taken = await any_world.http.post("/v1/sandboxes", json={"name": "same"})
        assert taken.status_code == 409
        assert taken.json()["error"]["code"] == "name_taken"
        await any_world.http.delete("/v1/sandboxes/same")
        assert (await any_world.get("same"))["id"] == first["id"]
        second = await any_world.create(name="same")
        assert (await any_world.get("same"))["id"] == second["id"]
        await any_world.http.delete("/v1/sandboxes/same")
        assert (await any_world.get("same"))["id"] == second["id"]

    async def test_many_at_once(self, any_world: World) -> None:
        made = await asyncio.gather(*(any_world.create() for _ in range(12)))
        assert {sandbox["state"] for sandbox in made} == {"running"}
        assert len({sandbox["id"] for sandbox in made}) == 12


class TestActs:
    async def test_pause_and_resume(self, any_world: World) -> None:
        made = await any_world.create()
        path = f"/v1/sandboxes/{made['id']}"
        paused = (await any_world.http.post(f"{path}/pause")).json()["data"]
        assert (paused["state"], paused["operation"]) == ("paused", None)
        assert paused["pausedAt"] is not None
        again = (await any_world.http.post(f"{path}/pause")).json()["data"]
        assert again["state"] == "paused"
        resumed = (await any_world.http.post(f"{path}/resume")).json()["data"]
        assert (resumed["state"], resumed["pausedAt"]) == ("running", None)

    async def test_after_its_end_its_ledger_tells_who_moved_it_and_why(
        self, any_world: World
    ) -> None:
        made = await any_world.create()
        path = f"/v1/sandboxes/{made['id']}"
        key = (await any_world.http.post("/v1/api-keys", json={"name": "x"})).json()["data"]
        async with client(any_world.url, key["key"]) as other:
            await other.post(f"{path}/pause")
            await any_world.http.post(f"{path}/resume")
            await other.delete(path)
        lines = await any_world.why(made["id"])
        mine, theirs = lines[0]["actor"], key["id"]
        assert [(line["state"], line["operation"], line["actor"]) for line in lines] == [
            ("creating", "starting", mine),
            ("running", None, mine),
            ("running", "pausing", theirs),
            ("paused", None, theirs),
            ("paused", "resuming", mine),
            ("running", None, mine),
            ("running", "destroying", theirs),
            ("stopped", None, theirs),
        ]
        assert {line["cause"] for line in lines} == {"request"}
        assert mine != theirs

    async def test_destroy_can_be_repeated(self, any_world: World) -> None:
        made = await any_world.create()
        path = f"/v1/sandboxes/{made['id']}"
        for _ in range(2):
            gone = await any_world.http.delete(path)
            assert gone.status_code == 200
            assert gone.json()["data"]["state"] == "stopped"
            assert gone.json()["data"]["ending"]["cause"] == "request"

    async def test_acts_on_an_ended_one_are_refused(self, world: World) -> None:
        made = await world.create()
        await world.http.delete(f"/v1/sandboxes/{made['id']}")
        for act in ("pause", "resume", "fork", "snapshots"):
            answer = await world.http.post(f"/v1/sandboxes/{made['id']}/{act}", json={})
            assert answer.json()["error"]["code"] == "sandbox_stopped", act

    async def test_acts_on_one_still_creating_are_refused(self, world: World) -> None:
        world.host.gate.clear()
        made = await world.create(waitForReady=False)
        answer = await world.http.post(f"/v1/sandboxes/{made['id']}/pause")
        assert answer.json()["error"]["code"] == "illegal_move"
        world.host.gate.set()

    async def test_destroy_of_one_still_queued(self, world: World) -> None:
        world.host.capacity = 0
        made = await world.create(waitForReady=False)
        await world.becomes(made["id"], operation="queued")
        gone = await world.http.delete(f"/v1/sandboxes/{made['id']}")
        assert gone.json()["data"]["state"] == "stopped"

    async def test_opposite_acts_at_once_end_in_one_of_both(self, world: World) -> None:
        made = await world.create()
        path = f"/v1/sandboxes/{made['id']}"
        acts = [world.http.post(f"{path}/{act}") for act in ("pause", "resume") * 6]
        answers = await asyncio.gather(*acts)
        assert {answer.status_code for answer in answers} <= {200, 409}
        assert (await world.get(made["id"]))["operation"] is None


class TestFork:
    async def test_children_take_after_their_parent(self, any_world: World) -> None:
        parent = await any_world.create(tags={"a": "b"}, env={"A": "1"}, memoryMb=512)
        path = f"/v1/sandboxes/{parent['id']}/fork"
        answer = await any_world.http.post(path, json={"count": 3, "name": "kid"})
        assert answer.status_code == 201, answer.text
        fork = answer.json()["data"]
        assert fork["standstillMs"] == 2.5
        assert [child["name"] for child in fork["children"]] == ["kid-1", "kid-2", "kid-3"]
        for child in fork["children"]:
            assert child["state"] == "running"
            assert child["parentId"] == parent["id"]
            assert child["startedFrom"] == "fork"
            assert (child["tags"], child["memoryMb"]) == ({"a": "b"}, 512)
            assert child["envNames"] == ["A"]

    async def test_it_is_answered_from_what_the_host_said_where_its_reports_lag(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parent = await world.create()
        await world.heard()
        read, gate = follow.take_in, asyncio.Event()

        async def lagging(*said: Any) -> None:
            await gate.wait()
            await read(*said)

        monkeypatch.setattr(settle, "LAG_SECONDS", 0.01)
        monkeypatch.setattr(follow, "take_in", lagging)
        path = f"/v1/sandboxes/{parent['id']}/fork"
        fork = (await world.http.post(path, json={"count": 3, "name": "kid"})).json()["data"]
        assert not gate.is_set()
        assert [child["name"] for child in fork["children"]] == ["kid-1", "kid-2", "kid-3"]
        assert {child["state"] for child in fork["children"]} == {"running"}
        assert (await world.get("kid-3"))["state"] == "creating", "nobody has read of it yet"
        gate.set()
        await world.becomes(fork["children"][2]["id"], state="running")

    async def test_one_child_bears_the_name_itself(self, world: World) -> None:
        parent = await world.create()
        path = f"/v1/sandboxes/{parent['id']}/fork"
        fork = (await world.http.post(path, json={"name": "kid", "tags": {}})).json()["data"]
        assert [child["name"] for child in fork["children"]] == ["kid"]

    async def test_a_taken_name_leaves_no_child(self, world: World) -> None:
        parent = await world.create(name="kid-2")
        path = f"/v1/sandboxes/{parent['id']}/fork"
        answer = await world.http.post(path, json={"count": 3, "name": "kid"})
        assert answer.json()["error"]["code"] == "name_taken"
        listed = (await world.http.get("/v1/sandboxes")).json()["data"]
        assert [sandbox["id"] for sandbox in listed] == [parent["id"]]

    async def test_names_fought_for_are_given_once(self, any_world: World) -> None:
        parent = await any_world.create()
        path = f"/v1/sandboxes/{parent['id']}/fork"
        acts = []
        for _ in range(6):
            acts.append(any_world.http.post(path, json={"count": 3, "name": "kid"}))
            acts.append(any_world.http.post("/v1/sandboxes", json={"name": "kid-3"}))
            acts.append(any_world.http.post("/v1/sandboxes", json={"name": "kid-1"}))
        answers = await asyncio.gather(*acts)
        assert {answer.status_code for answer in answers} <= {201, 409}
        listed = (await any_world.http.get("/v1/sandboxes?limit=100")).json()["data"]
        names = [sandbox["name"] for sandbox in listed if sandbox["name"]]
        assert len(names) == len(set(names)) >= 2

    async def test_a_refused_fork_ends_its_children(self, world: World) -> None:
        parent = await world.create()
        world.host.refuse(CapacityExhausted("no room"))
        path = f"/v1/sandboxes/{parent['id']}/fork"
        answer = await world.http.post(path, json={"count": 2})
        assert answer.json()["error"]["code"] == "capacity_exhausted"
        stopped = (await world.http.get("/v1/sandboxes?state=stopped")).json()["data"]
        assert [sandbox["ending"]["cause"] for sandbox in stopped] == ["start_failed"] * 2


class TestSnapshots:
    async def test_made_listed_rolled_back_and_deleted(self, any_world: World) -> None:
        http = any_world.http
        path = f"/v1/sandboxes/{(await any_world.create())['id']}"
        await http.put(f"{path}/files?path=/workspace/a", content=b"before")
        made = (await http.post(f"{path}/snapshots", json={"name": "good"})).json()["data"]
        assert (made["name"], made["sizeBytes"], made["standstillMs"]) == ("good", 4096, 1.5)
        await http.put(f"{path}/files?path=/workspace/a", content=b"after")
        back = await http.post(f"{path}/rollback", json={"to": "good"})
        assert back.json()["data"]["state"] == "running"
        assert (await http.get(f"{path}/files?path=/workspace/a")).content == b"before"
        assert (await http.get(f"{path}/snapshots")).json()["data"] == [made]
        gone = await http.delete(f"{path}/snapshots/{made['id']}")
        assert gone.json()["data"] == made
        assert (await http.get(f"{path}/snapshots")).json()["data"] == []

    async def test_a_name_serves_one_snapshot_of_a_sandbox(self, any_world: World) -> None:
        path = f"/v1/sandboxes/{(await any_world.create())['id']}/snapshots"
        await any_world.http.post(path, json={"name": "good"})
        again = await any_world.http.post(path, json={"name": "good"})
        assert again.json()["error"]["code"] == "name_taken"

    async def test_they_end_with_their_sandbox(self, any_world: World) -> None:
        path = f"/v1/sandboxes/{(await any_world.create())['id']}"
        await any_world.http.post(f"{path}/snapshots", json={"name": "s"})
        await any_world.http.delete(path)
        assert (await any_world.http.get(f"{path}/snapshots")).json()["data"] == []
        assert (await any_world.http.delete(f"{path}/snapshots/s")).status_code == 404

    async def test_they_stay_while_its_disk_is_kept(self, world: World) -> None:
        made = await world.create()
        path = f"/v1/sandboxes/{made['id']}"
        await world.http.post(f"{path}/snapshots", json={"name": "s"})
        await world.host.die(made["id"], "the VMM was killed")
        await world.becomes(made["id"], state="stopped")
        assert len((await world.http.get(f"{path}/snapshots")).json()["data"]) == 1

    async def test_unknown_ones_are_not_found(self, world: World) -> None:
        path = f"/v1/sandboxes/{(await world.create())['id']}"
        back = await world.http.post(f"{path}/rollback", json={"to": "nothing"})
        assert back.json()["error"]["code"] == "not_found"
        assert (await world.http.delete(f"{path}/snapshots/nothing")).status_code == 404


class TestRecoverPaused:
    async def test_its_disk_is_reached_and_it_stays(self, any_world: World) -> None:
        made = await any_world.create(name="old", env={"A": "1"})
        path = f"/v1/sandboxes/{made['id']}"
        await any_world.http.put(f"{path}/files?path=/workspace/a", content=b"kept")
        await any_world.http.post(f"{path}/pause")
        answer = await any_world.http.post(f"{path}/recover", json={"name": "new"})
        assert answer.status_code == 201, answer.text
        fresh = answer.json()["data"]
        assert (fresh["name"], fresh["startedFrom"]) == ("new", "recovery")
        assert any_world.host.machines[fresh["id"]].order.guest.env == {"A": "1"}
        file = await any_world.http.get("/v1/sandboxes/new/files?path=/workspace/a")
        assert file.content == b"kept"
        assert (await any_world.get(made["id"]))["state"] == "paused"


class TestEnds:
    async def test_a_dead_machine_is_stopped_and_says_why(self, any_world: World) -> None:
        made = await any_world.create()
        await any_world.host.die(made["id"], "the VMM was killed")
        shown = await any_world.becomes(made["id"], state="stopped")
        assert shown["ending"]["reason"] == "the VMM was killed"
        assert shown["ending"]["consoleTail"] == ["panic"]
        last = (await any_world.why(made["id"]))[-1]
        assert (last["cause"], last["actor"]) == ("vmm_exit", "host")
        assert last["detail"]["ending"]["reason"] == "the VMM was killed"

    async def test_recover_boots_a_new_one_from_its_disk(self, any_world: World) -> None:
        made = await any_world.create(name="old", env={"A": "1"})
        path = f"/v1/sandboxes/{made['id']}"
        await any_world.http.put(f"{path}/files?path=/workspace/a", content=b"kept")
        early = await any_world.http.post(f"{path}/recover", json={})
        assert early.json()["error"]["code"] == "illegal_move"
        await any_world.host.die(made["id"], "gone")
        await any_world.becomes(made["id"], state="stopped")
        answer = await any_world.http.post(f"{path}/recover", json={"name": "new"})
        assert answer.status_code == 201, answer.text
        fresh = answer.json()["data"]
        assert (fresh["name"], fresh["startedFrom"]) == ("new", "recovery")
        assert any_world.host.machines[fresh["id"]].order.guest.env == {"A": "1"}
        file = await any_world.http.get("/v1/sandboxes/new/files?path=/workspace/a")
        assert file.content == b"kept"

    async def test_what_was_told_inside_is_erased_with_the_sandbox(self, world: World) -> None:
        made = await world.create(env={"SECRET": "xyzzy-plugh"})
        await world.http.delete(f"/v1/sandboxes/{made['id']}")
        assert await world.platform.db.read(guests.of, world.platform.vault, made["id"]) == Guest()

    async def test_destroying_an_ended_one_gives_its_kept_disk_up(self, any_world: World) -> None:
        made = await any_world.create(name="a")
        path = f"/v1/sandboxes/{made['id']}"
        await any_world.http.post(f"{path}/snapshots", json={"name": "s"})
        await any_world.host.die(made["id"], "the VMM was killed")
        await any_world.becomes(made["id"], state="stopped")
        for _ in range(2):
            gone = (await any_world.http.delete(path)).json()["data"]
            assert gone["ending"]["recoverableUntil"] is None
            assert gone["ending"]["reason"] == "the VMM was killed"
        assert (await any_world.http.get(f"{path}/snapshots")).json()["data"] == []
        refused = await any_world.http.post(f"{path}/recover", json={})
        assert refused.json()["error"]["code"] == "not_found"

    async def test_an_idle_pause_shows(self, world: World) -> None:
        made = await world.create()
        await world.host.idle(made["id"])
        await world.becomes(made["id"], state="paused")
        assert (await world.why(made["id"]))[-1]["cause"] == "idle"


class TestList:
    async def test_filters(self, any_world: World) -> None:
        blue = await any_world.create(name="b", tags={"team": "blue", "n": "1:2"})
        red = await any_world.create(tags={"team": "red"})
        await any_world.http.post(f"/v1/sandboxes/{red['id']}/pause")
        gone = await any_world.create(tags={"team": "red"})
        await any_world.http.delete(f"/v1/sandboxes/{gone['id']}")

        async def ids(query: str) -> list[str]:
            answer = await any_world.http.get(f"/v1/sandboxes?{query}")
            assert answer.status_code == 200, answer.text
            return [sandbox["id"] for sandbox in answer.json()["data"]]

        assert await ids("") == [red["id"], blue["id"]]
        assert await ids("tag=team:blue") == [blue["id"]]
        assert await ids("tag=team:blue&tag=n:1:2") == [blue["id"]]
        assert await ids("tag=team:blue&tag=n:1") == []
        assert await ids("state=paused") == [red["id"]]
        assert await ids("state=stopped&state=paused") == [gone["id"], red["id"]]
        assert await ids("name=b") == [blue["id"]]
        assert await ids("template=base-debian&tag=team:red") == [red["id"]]
        assert await ids(f"projectId={blue['projectId']}") == [red["id"], blue["id"]]
        assert await ids("template=other") == []

    async def test_pages_hold_each_one_once(self, any_world: World) -> None:
        made = [(await any_world.create())["id"] for _ in range(7)]
        seen: list[str] = []
        query = "limit=3"
        while True:
            answer = (await any_world.http.get(f"/v1/sandboxes?{query}")).json()
            seen += [sandbox["id"] for sandbox in answer["data"]]
            assert answer["meta"]["hasMore"] == (answer["meta"]["nextCursor"] is not None)
            if not answer["meta"]["hasMore"]:
                break
            # One made in between does not move the pages that follow.
            await any_world.create()
            query = f"limit=3&cursor={answer['meta']['nextCursor']}"
        assert seen == made[::-1]

    async def test_the_ledger_has_pages_too(self, world: World) -> None:
        made = await world.create()
        path = f"/v1/sandboxes/{made['id']}"
        await world.http.post(f"{path}/pause")
        whole = await world.why(made["id"])
        first = (await world.http.get(f"{path}/why?limit=2")).json()
        rest = (await world.http.get(f"{path}/why?cursor={first['meta']['nextCursor']}")).json()
        assert first["data"] + rest["data"] == whole


class TestOrgs:
    async def test_another_org_sees_nothing(self, any_world: World) -> None:
        made = await any_world.create(name="mine")
        async with await any_world.stranger() as other:
            nobody = new_sandbox_id()
            for path in ("", "/why", "/stats", "/snapshots", "/events", "/files?path=/a"):
                theirs = await other.get(f"/v1/sandboxes/{made['id']}{path}")
                nothing = await other.get(f"/v1/sandboxes/{nobody}{path}")
                assert theirs.status_code == nothing.status_code == 404
                told = theirs.json()["error"]["message"]
                assert told == nothing.json()["error"]["message"].replace(nobody, made["id"])
            assert (await other.get("/v1/sandboxes/mine")).status_code == 404
            assert (await other.delete(f"/v1/sandboxes/{made['id']}")).status_code == 404
            assert (await other.get("/v1/sandboxes")).json()["data"] == []
            # What the platform's own org has built by a recipe as it stands is there for all to use.
            shared = (await other.get("/v1/templates")).json()["data"]
            assert [one["slug"] for one in shared] == ["base-debian"]
            assert (await other.delete("/v1/templates/base-debian")).status_code == 404
        assert (await any_world.get("mine"))["state"] == "running"
