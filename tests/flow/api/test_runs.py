"""Runs: their logs, their queue and who may append, through the real api and a worker that tests drive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import update

from runtools import AsyncRunTools
from runtools.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    SecretUnfit,
    TooLarge,
)
from runtools.platform.api.definitions.tables import definitions
from runtools.platform.api.runs import log
from runtools.platform.api.secrets import sent
from runtools.platform.api.workers import taking
from runtools.platform.core.ports.worker import NewEvent
from runtools.platform.kit.db import Transaction
from runtools.testing.api_world import client, holds
from runtools.testing.fake_worker import (
    USED,
    FakeWorker,
    Held,
    answered,
    asked,
    called,
    done,
    fake_worker,
    said,
    used,
)
from runtools.testing.run_stage import AGENT, Stage
from runtools.testing.tenancy.records import deployed

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestLog:
    async def test_a_run_from_its_message_to_its_end(self, stage: Stage) -> None:
        run, given = await stage.taken("Say hello.")
        assert given.run.status == "running"
        assert given.agent.slug == "coder"
        assert [one.type for one in given.log] == ["run-started", "message"]
        assert given.log[1].data["text"] == "Say hello."
        assert given.limits == {"max_iterations": 25}
        news = await stage.worker.append(
            run, said("Looking."), used(), called("bash", command="ls"), answered("bash")
        )
        assert [one.seq for one in news.events] == [3, 4, 5, 6]
        await stage.worker.append(run, said("Hello.", 2), used(2), done("Hello."))
        shown = await stage.get(run.run_id)
        assert (shown["status"], shown["output"], shown["iterations"]) == ("completed", "Hello.", 2)
        assert shown["usage"]["inputTokens"] == 20
        assert shown["usage"]["costUsd"] == "0.002"
        log = await stage.events(run.run_id)
        assert [one["seq"] for one in log] == list(range(1, 10))
        assert [one["type"] for one in log] == [
            "run-started", "message", "message", "usage", "tool-call", "tool-result",
            "message", "usage", "done",
        ]  # fmt: skip
        assert log[7]["data"]["total"]["inputTokens"] == 20
        assert log[-1]["data"]["usage"] == shown["usage"]
        assert log[-1]["data"]["iterations"] == 2
        assert all(set(one) == {"type", "seq", "runId", "at", "data"} for one in log)
        assert "raw" not in json.dumps(log)  # what goes back to the model is no reader's

    async def test_a_repeat_changes_nothing_and_is_answered_with_what_stands_there(
        self, stage: Stage
    ) -> None:
        run, _ = await stage.taken()
        first = await stage.worker.append(run, said("One."), used())
        again = await stage.worker.append(run, said("Another."), used(), called("bash"))
        assert again.events[:2] == first.events
        assert again.events[2].seq == 5
        ended = await stage.worker.finish(run)
        assert await stage.worker.finish(run) == ended
        shown = await stage.get(run.run_id)
        assert shown["usage"]["requests"] == 2
        with pytest.raises(Conflict):
            await stage.worker.append(run, said("More.", 7))

    async def test_only_the_latest_lease_appends(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        for lease in (0, run.lease - 1, run.lease + 1):
            with pytest.raises(Conflict):
                await stage.worker.append(Held(run_id=run.run_id, lease=lease), said("No."))
            with pytest.raises(Conflict):
                await stage.worker.read(Held(run_id=run.run_id, lease=lease), 0)
        async with fake_worker(stage.world.url, stage.world.token("worker"), slots=0) as other:
            with pytest.raises(Conflict):
                await other.append(run, said("Not mine."))
        assert (await stage.get(run.run_id))["lastSeq"] == 2
        await stage.worker.finish(run)

    async def test_appends_at_once_leave_no_gap(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        path = f"/v1/runs/{run.run_id}/messages"
        await asyncio.gather(
            *(stage.worker.append(run, called("bash", f"c{n}")) for n in range(20)),
            *(stage.org.ask("POST", path, json={"message": f"word {n}"}) for n in range(10)),
        )
        await stage.worker.finish(run)
        log = await stage.events(run.run_id)
        assert [one["seq"] for one in log] == list(range(1, len(log) + 1))
        assert len(log) == 2 + 20 + 10 + 3

    @pytest.mark.parametrize(
        "event",
        [
            NewEvent(key="x", type="tool-call", data={"name": "bash"}),
            NewEvent(key="x", type="usage", data={"turn": 1, "costUsd": "much"}),
            NewEvent(key="x", type="usage", data={"turn": 1, "costUsd": "-1"}),
            NewEvent(key="x", type="usage", data={"turn": 1, "costUsd": "NaN"}),
            NewEvent(key="x", type="done", data={"status": "queued"}),
            NewEvent(key="api:x", type="message", data={"role": "user", "text": "a", "turn": 1}),
        ],
    )
    async def test_what_has_not_its_form_is_refused_whole(
        self, stage: Stage, event: NewEvent
    ) -> None:
        run, _ = await stage.taken()
        with pytest.raises(InvalidRequest):
            await stage.worker.append(run, said("Before."), event)
        assert (await stage.get(run.run_id))["lastSeq"] == 2
        await stage.worker.finish(run)

    async def test_zero_bytes_and_pictures_are_kept(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(run, answered("bash", output="a\0b ü \u2028"))
        await stage.worker.finish(run)
        assert (await stage.events(run.run_id))[2]["data"]["output"] == "a\0b ü \u2028"

    async def test_an_event_that_no_reader_takes_is_refused(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        with pytest.raises(TooLarge):
            await stage.worker.append(run, answered("bash", output="x" * (13 << 20)))
        await stage.worker.append(run, answered("bash", output="x" * (11 << 20)))
        await stage.worker.finish(run)
        assert len((await stage.events(run.run_id))[2]["data"]["output"]) == 11 << 20

    async def test_nor_is_one_whose_wire_no_worker_would_be_handed(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log, "MAX_WIRE_BYTES", 100)
        run, _ = await stage.taken()
        with pytest.raises(TooLarge):
            await stage.worker.append(run, said("x" * 100))
        assert (await stage.get(run.run_id))["lastSeq"] == 2
        await stage.worker.append(run, said("x" * 80))
        await stage.worker.finish(run)

    async def test_a_conversation_that_no_worker_takes_ends_its_run(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(taking, "MAX_CONVERSATION_BYTES", 100)
        made = await stage.run("x" * 200)
        with pytest.raises(TooLarge):
            await stage.take(made["id"])
        shown = await stage.get(made["id"])
        assert (shown["status"], shown["error"]["code"]) == ("failed", "too_large")


class TestQueue:
    async def test_runs_of_a_thread_go_one_at_a_time(self, stage: Stage) -> None:
        run, _ = await stage.taken("First.")
        first = await stage.get(run.run_id)
        second = await stage.run("Second.", threadId=first["threadId"])
        third = await stage.run("Third.", threadId=first["threadId"])
        offer = Held(run_id=second["id"], lease=1)
        with pytest.raises(Conflict):
            await stage.worker.take(offer)  # type: ignore[arg-type]
        assert stage.worker.offers.empty()
        await stage.worker.finish(run, "One.")
        run, given = await stage.take(second["id"])
        assert [one.data.get("text") for one in given.earlier] == ["First.", "One.", None]
        assert given.earlier[1].wire == {"raw": "One."}
        assert given.earlier[2].data["inputTokens"] == USED["inputTokens"]
        await stage.worker.finish(run, "Two.")
        run, given = await stage.take(third["id"])
        texts = [one.data["text"] for one in given.earlier if one.type == "message"]
        assert texts == ["First.", "One.", "Second.", "Two."]
        await stage.worker.finish(run)

    async def test_a_conversation_goes_on_from_its_last_compaction(self, stage: Stage) -> None:
        run, _ = await stage.taken("Long story.")
        thread = (await stage.get(run.run_id))["threadId"]
        summary = {"turn": 1, "tokensBefore": 9, "summary": "It was long."}
        await stage.worker.append(
            run, said("Yes."), NewEvent(key="1:c", type="compaction", data=summary)
        )
        await stage.worker.finish(run, "End.")
        made = await stage.run("And?", threadId=thread)
        run, given = await stage.take(made["id"])
        assert [one.type for one in given.earlier] == ["compaction", "message", "usage"]
        await stage.worker.finish(run)
        told = await stage.org.ask("GET", f"/v1/threads/{thread}/messages")
        assert [one["role"] for one in told][:3] == ["user", "assistant", "summary"]

    async def test_runs_that_share_a_sandbox_take_turns(self, stage: Stage) -> None:
        run, _ = await stage.taken(agent="shared")
        other = await stage.run(agent="shared")
        beside, _ = await stage.taken(agent="beside")
        await stage.worker.finish(beside)
        assert (await stage.get(other["id"]))["status"] == "queued"
        # One that waits for a person holds nobody up.
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        second, _ = await stage.take(other["id"])
        await stage.org.ask(
            "POST", f"/v1/runs/{run.run_id}/approve", json={"callId": "c1", "decision": "allow"}
        )
        assert (await stage.get(run.run_id))["status"] == "queued"
        assert stage.worker.offers.empty()
        await stage.worker.finish(second)
        run, _ = await stage.take(run.run_id)
        await stage.worker.finish(run)

    async def test_also_when_another_sandbox_has_come_to_stand_there(self, stage: Stage) -> None:
        standing = (await stage.org.ask("GET", "/v1/standing-sandboxes/box"))["sandboxId"]
        run, _ = await stage.taken(agent="shared")
        other = await stage.world.create()

        def stand(conn: Transaction) -> None:
            mine = definitions.c.sandbox_id == standing
            conn.execute(update(definitions).where(mine).values(sandbox_id=other["id"]))

        await stage.world.platform.db.write(stand)
        made = [await stage.run(agent="shared"), await stage.run(sandboxId=other["id"])]
        assert stage.worker.offers.empty()
        for one in made:
            with pytest.raises(Conflict):
                await stage.worker.take(Held(run_id=one["id"], lease=1))  # type: ignore[arg-type]
        await stage.worker.finish(run)
        for one in made:
            run, _ = await stage.take(one["id"])
            assert (await stage.worker.place(run)).sandbox_id == other["id"]
            await stage.worker.finish(run)

    async def test_of_many_takers_one_gets_a_run(self, stage: Stage) -> None:
        made = await stage.run()
        offer = await stage.worker.offered()
        while offer.run_id != made["id"]:
            offer = await stage.worker.offered()
        url, token = stage.world.url, stage.world.token("worker")
        async with (
            fake_worker(url, token, slots=0) as one,
            fake_worker(url, token, slots=0) as two,
        ):
            tries = [worker.take(offer) for worker in (one, two, stage.worker) for _ in range(2)]
            got = await asyncio.gather(*tries, return_exceptions=True)
            winners = [given for given in got if not isinstance(given, BaseException)]
            assert winners
            assert all(isinstance(lost, Conflict) for lost in got if lost not in winners)
            assert len({given.run.id for given in winners}) == 1
        if any(given in winners for given in got[-2:]):
            run = Held(run_id=made["id"], lease=offer.lease)
        else:
            run, _ = await stage.take(made["id"])  # the winner has gone
        await stage.worker.finish(run)

    async def test_a_worker_is_offered_no_more_than_it_has_room_for(self, stage: Stage) -> None:
        url, token = stage.world.url, stage.world.token("worker")
        await stage.worker.close()
        async with fake_worker(url, token, slots=1) as one:
            runs = [await stage.run() for _ in range(2)]
            offer = await one.offered()
            await one.take(offer)
            await asyncio.sleep(0)
            assert one.offers.empty()
            await one.finish(Held(run_id=offer.run_id, lease=offer.lease))
            while (offer := await one.offered()).run_id != runs[1]["id"]:
                pass
            await one.take(offer)
            await one.finish(Held(run_id=offer.run_id, lease=offer.lease))


class TestWorkers:
    async def test_runs_of_a_worker_that_is_gone_are_taken_over(self, stage: Stage) -> None:
        url, token = stage.world.url, stage.world.token("worker")
        run, _ = await stage.taken()
        await stage.worker.append(run, said("So far."))
        await stage.worker.die()
        clock = stage.world.platform.clock
        began = clock.monotonic()
        async with fake_worker(url, token) as other:
            offer = await other.offered()
            assert clock.monotonic() - began < 10
            assert (offer.run_id, offer.lease) == (run.run_id, run.lease + 1)
            given = await other.take(offer)
            assert [one.type for one in given.log] == ["run-started", "message", "message"]
            await other.finish(Held(run_id=offer.run_id, lease=offer.lease))

    async def test_one_that_comes_back_takes_its_runs_anew(self, stage: Stage) -> None:
        url, token = stage.world.url, stage.world.token("worker")
        run, _ = await stage.taken()
        gone, _ = await stage.taken()
        await stage.worker.die()
        me = stage.worker.worker_id
        async with fake_worker(url, token, worker_id=me, slots=9) as back:
            for before in (run, gone):
                with pytest.raises(Conflict):
                    await back.append(before, said("Too late."))
            offers = {offer.run_id: offer for offer in [await back.offered(), await back.offered()]}
            for before in (run, gone):
                offer = offers[before.run_id]
                assert offer.lease == before.lease + 1
                await back.take(offer)
                await back.finish(Held(run_id=offer.run_id, lease=offer.lease))

    async def test_one_that_ends_in_order_hands_over_at_once(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.close()
        await holds(lambda: _is(stage, run.run_id, "queued"), 3)
        async with fake_worker(stage.world.url, stage.world.token("worker")) as other:
            await other.take(await other.offered())
            await other.finish(Held(run_id=run.run_id, lease=run.lease + 1))

    async def test_nobody_else_connects(self, stage: Stage) -> None:
        from websockets.exceptions import InvalidStatus

        for token in (stage.world.key, stage.world.token("gateway"), "rt_part_" + "x" * 43):
            with pytest.raises(InvalidStatus) as refused:
                async with fake_worker(stage.world.url, token):
                    pass
            assert refused.value.response.status_code in (401, 403)

    async def test_garbage_ends_the_connection_with_a_word(self, stage: Stage) -> None:
        url, token = stage.world.url, stage.world.token("worker")
        for text in ("{", "[]", '{"call":"dance","id":1}', '{"id":"x","call":"read"}'):
            async with fake_worker(url, token, slots=0) as other:
                await other._socket.send(text)
                await holds(_gone(other))


def _gone(worker: FakeWorker) -> Callable[[], bool]:
    return lambda: worker.is_gone


async def _is(stage: Stage, run_id: str, status: str) -> bool:
    return bool((await stage.get(run_id))["status"] == status)


class TestToken:
    async def test_a_run_works_in_its_own_sandbox_and_nowhere_else(self, stage: Stage) -> None:
        run, given = await stage.taken()
        async with client(stage.world.url, given.token) as http:
            box = (await stage.worker.place(run)).sandbox_id
            other = (await stage.world.create())["id"]
            made = await http.post(f"/v1/sandboxes/{box}/exec", json={"command": "true"})
            assert made.status_code == 200, made.text
            assert (await http.get(f"/v1/sandboxes/{box}")).status_code == 200
            for method, path in (
                ("GET", f"/v1/sandboxes/{other}"),
                ("POST", f"/v1/sandboxes/{other}/exec"),
                ("DELETE", f"/v1/sandboxes/{box}"),
                ("POST", f"/v1/sandboxes/{box}/pause"),
                ("PATCH", f"/v1/sandboxes/{box}/egress"),
                ("POST", f"/v1/sandboxes/{box}/fork"),
                ("POST", "/v1/sandboxes"),
                ("GET", "/v1/sandboxes"),
                ("GET", "/v1/me"),
                ("GET", "/v1/secrets"),
                ("POST", "/v1/run"),
                ("GET", f"/v1/runs/{run.run_id}"),
                ("GET", "/parts/worker"),
            ):
                answer = await http.request(method, path, json={})
                assert answer.status_code == 403, (method, path, answer.text)
            await stage.worker.finish(run)
            answer = await http.get(f"/v1/sandboxes/{box}")
            assert answer.status_code == 401
        query = f"/v1/audit?actor={run.run_id}&resource={box}&action=inside.exec"
        await holds(lambda: stage.org.ask("GET", query))

    async def test_a_run_wakes_its_own_sandbox_and_no_other(self, stage: Stage) -> None:
        run, given = await stage.taken()
        box = (await stage.worker.place(run)).sandbox_id
        other = (await stage.world.create())["id"]
        for one in (box, other):
            assert (await stage.world.http.post(f"/v1/sandboxes/{one}/pause")).status_code == 200
        async with AsyncRunTools(given.token, stage.world.url) as rt:
            sandbox = await rt.sandboxes.get(box)
            assert sandbox.state == "paused"
            await sandbox.resume(timeout_seconds=60)
            assert sandbox.state == "running"
        async with client(stage.world.url, given.token) as http:
            assert (await http.post(f"/v1/sandboxes/{other}/resume")).status_code == 403
        await stage.worker.finish(run)

    async def test_another_lease_has_another(self, stage: Stage) -> None:
        run, given = await stage.taken()
        await stage.worker.place(run)
        await stage.worker.close()
        async with client(stage.world.url, given.token) as http:
            await holds(lambda: _is(stage, run.run_id, "queued"), 3)
            box = (await stage.get(run.run_id))["sandboxId"]
            assert (await http.get(f"/v1/sandboxes/{box}")).status_code == 401
        async with fake_worker(stage.world.url, stage.world.token("worker")) as other:
            again = await other.take(await other.offered())
            async with client(stage.world.url, again.token) as http:
                assert (await http.get(f"/v1/sandboxes/{box}")).status_code == 200
            await other.finish(Held(run_id=run.run_id, lease=run.lease + 1))


class TestPlace:
    async def test_one_on_demand_is_kept_for_the_thread(self, stage: Stage) -> None:
        run, given = await stage.taken()
        placed = await stage.worker.place(run)
        assert not placed.replaced  # there was none before
        assert await stage.worker.place(run) == placed
        await stage.worker.finish(run)
        made = await stage.run("More.", threadId=given.run.thread_id)
        run, _ = await stage.take(made["id"])
        assert (await stage.worker.place(run)).sandbox_id == placed.sandbox_id
        assert (await stage.get(run.run_id))["sandboxId"] == placed.sandbox_id
        shown = await stage.org.ask("GET", f"/v1/sandboxes/{placed.sandbox_id}")
        assert shown["tags"]["thread"] == given.run.thread_id
        assert shown["idleTimeoutSeconds"] > 0
        await stage.org.ask("DELETE", f"/v1/sandboxes/{placed.sandbox_id}")
        again = await stage.worker.place(run)
        assert again.replaced
        assert again.sandbox_id != placed.sandbox_id
        # Who asked may have died before anybody was told: it is said until a result tells of it.
        assert await stage.worker.place(run) == again
        await stage.worker.append(run, called("bash"), answered("bash"))
        assert not (await stage.worker.place(run)).replaced
        await stage.worker.finish(run)

    async def test_a_shared_one_and_forks_of_it(self, stage: Stage) -> None:
        standing = (await stage.org.ask("GET", "/v1/standing-sandboxes/box"))["sandboxId"]
        run, _ = await stage.taken(agent="shared")
        assert (await stage.worker.place(run)).sandbox_id == standing
        await stage.worker.finish(run)
        run, _ = await stage.taken(agent="forker")
        placed = await stage.worker.place(run)
        child = placed.sandbox_id
        assert child != standing
        assert not placed.replaced
        assert (await stage.org.ask("GET", f"/v1/sandboxes/{child}"))["parentId"] == standing
        assert (await stage.worker.place(run)).sandbox_id == child
        await stage.worker.finish(run)

    async def test_one_that_was_asked_for(self, stage: Stage) -> None:
        box = await stage.world.create(name="mine")
        run, _ = await stage.taken(sandboxId="mine")
        assert (await stage.worker.place(run)).sandbox_id == box["id"]
        await stage.worker.finish(run)
        await stage.org.ask("DELETE", f"/v1/sandboxes/{box['id']}")
        body = {"agentSlug": "coder", "message": "x", "sandboxId": box["id"]}
        answer = await stage.org.http.post("/v1/run", json=body)
        assert answer.json()["error"]["code"] == "sandbox_stopped"

    async def test_who_may_not_work_in_a_sandbox_gives_it_to_no_run(self, stage: Stage) -> None:
        box = await stage.world.create()
        key = {"name": "runner", "scopes": ["agent:run"]}
        secret = (await stage.org.ask("POST", "/v1/api-keys", json=key))["key"]
        body = {"agentSlug": "coder", "message": "x", "sandboxId": box["id"]}
        async with client(stage.world.url, secret) as http:
            answer = await http.post("/v1/run", json=body)
        assert answer.json()["error"]["details"]["needed"] == "sandbox:write"

    async def test_nor_says_what_a_run_does_in_one(self, stage: Stage) -> None:
        """Not by a decision, whose arguments may be other ones, and not by a word in between."""
        box = await stage.world.create()
        run, _ = await stage.taken(sandboxId=box["id"])
        path = f"/v1/runs/{run.run_id}"
        decision = {"callId": "c1", "decision": "allow", "arguments": {"command": "id"}}
        word = {"message": "Do something else."}

        async def asked(*scopes: str) -> list[httpx.Response]:
            key = {"name": "runner", "scopes": scopes}
            secret = (await stage.org.ask("POST", "/v1/api-keys", json=key))["key"]
            async with client(stage.world.url, secret) as http:
                return [
                    await http.post(f"{path}/approve", json=decision),
                    await http.post(f"{path}/messages", json=word),
                ]

        said = f"/v1/threads/{(await stage.get(run.run_id))['threadId']}/messages"
        before = await stage.org.ask("GET", said)
        for answer in await asked("agent:run", "sandbox:read"):
            assert answer.json()["error"]["details"]["needed"] == "sandbox:write", answer.text
        assert await stage.org.ask("GET", said) == before
        refused, taken = await asked("agent:run", "sandbox:write")
        assert (refused.status_code, taken.status_code) == (404, 200)  # no call waits
        await stage.worker.finish(run)

    async def test_a_broken_off_making_is_found_again(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from runtools.platform.api.workers import places

        run, given = await stage.taken()

        def die(_name: str) -> None:
            raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(places, "reach", die)
            with pytest.raises(Exception, match="failed"):
                await stage.worker.place(run)
        placed = await stage.worker.place(run)
        query = f"/v1/sandboxes?tag=thread:{given.run.thread_id}"
        assert [one["id"] for one in await stage.org.ask("GET", query)] == [placed.sandbox_id]
        await stage.worker.finish(run)


class TestSecrets:
    async def test_what_the_run_needs_and_nothing_else(self, stage: Stage) -> None:
        secrets = (
            ("MCP_KEY", "tool", "agents"),
            ("OTHER_KEY", "provider", "all"),
            ("EXA_API_KEY", "provider", "all"),
        )
        for name, category, scope in secrets:
            body = {"name": name, "value": f"v-{name}", "category": category, "scope": scope}
            await stage.org.ask("POST", "/v1/secrets", json=body)
        run, given = await stage.taken(agent="claude")
        assert (given.model.provider, given.model.api_key) == ("anthropic", "of the machine")
        assert given.limits["max_total_tokens"] == 900
        assert await stage.worker.secret(run, "ANTHROPIC_API_KEY") == "of the machine"
        assert await stage.worker.secret(run, "EXA_API_KEY") == "v-EXA_API_KEY"
        assert await stage.worker.secret(run, "MCP_KEY", "x") == "v-MCP_KEY"
        for name in ("OTHER_KEY", "OPENAI_API_KEY", "NOTHING", "MCP_KEY"):
            with pytest.raises(Forbidden):
                await stage.worker.secret(run, name)
        for name, server in (("EXA_API_KEY", "x"), ("MCP_KEY", "y"), ("OTHER_KEY", "x")):
            with pytest.raises(Forbidden):
                await stage.worker.secret(run, name, server)
        await stage.org.ask("DELETE", "/v1/secrets/EXA_API_KEY")
        with pytest.raises(NotFound):
            await stage.worker.secret(run, "EXA_API_KEY")
        lines = await stage.org.ask("GET", f"/v1/audit?actor={run.run_id}")
        assert {one["action"] for one in lines} == {"secrets.use"}
        assert {one["resource"] for one in lines} == {"ANTHROPIC_API_KEY", "EXA_API_KEY", "MCP_KEY"}
        assert "v-" not in json.dumps(lines)
        await stage.worker.finish(run)

    async def test_one_that_cannot_be_sent_is_not_told(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = await stage.taken(agent="claude")
        with monkeypatch.context() as patch:  # they were kept when anything was
            patch.setattr(sent, "check", lambda *_: None)
            for name, category in (
                ("MCP_KEY", "tool"),
                ("EXA_API_KEY", "provider"),
                ("ANTHROPIC_API_KEY", "provider"),
            ):
                body = {"name": name, "value": "odd-key\n", "category": category, "scope": "all"}
                await stage.org.ask("POST", "/v1/secrets", json=body)
        for name, server in (("MCP_KEY", "x"), ("EXA_API_KEY", None)):
            with pytest.raises(SecretUnfit, match=f"^{name} cannot be sent") as told:
                await stage.worker.secret(run, name, server)
            assert "odd-key" not in str(told.value)
        await stage.worker.finish(run)
        made = await stage.run("Hello.", agent="claude")
        with pytest.raises(SecretUnfit, match=r"^ANTHROPIC_API_KEY cannot be sent"):
            await stage.take(made["id"])
        ended = await stage.get(made["id"])
        assert (ended["status"], ended["error"]["code"]) == ("failed", "secret_unfit")
        assert "odd-key" not in json.dumps([ended, await stage.events(made["id"])])
        for name in ("MCP_KEY", "EXA_API_KEY", "ANTHROPIC_API_KEY"):
            await stage.org.ask("DELETE", f"/v1/secrets/{name}")

    async def test_a_secret_that_is_not_for_agents_is_not_told(self, stage: Stage) -> None:
        run, _ = await stage.taken(agent="claude")
        kinds = (("tool", "sandboxes"), ("provider", "agents"), ("custom", "all"))
        for category, scope in kinds:
            body = {"name": "MCP_KEY", "value": "v", "category": category, "scope": scope}
            await stage.org.ask("POST", "/v1/secrets", json=body)
            with pytest.raises(NotFound, match="of category tool"):
                await stage.worker.secret(run, "MCP_KEY", "x")
        await stage.worker.finish(run)

    async def test_a_server_is_never_sent_the_key_of_a_model(self, stage: Stage) -> None:
        theirs = [{"name": "x", "url": "https://x.example/mcp", "secret": "ANTHROPIC_API_KEY"}]
        agents = [{**AGENT, "slug": "thief", "model": "claude-haiku", "mcpServers": theirs}]
        await deployed(stage.org, agents=agents)
        body = {"name": "ANTHROPIC_API_KEY", "value": "v", "category": "provider", "scope": "all"}
        await stage.org.ask("POST", "/v1/secrets", json=body)
        run, _ = await stage.taken(agent="thief")
        assert await stage.worker.secret(run, "ANTHROPIC_API_KEY") == "v"
        with pytest.raises(NotFound):
            await stage.worker.secret(run, "ANTHROPIC_API_KEY", "x")
        await stage.org.ask("DELETE", "/v1/secrets/ANTHROPIC_API_KEY")
        await stage.worker.finish(run)


class TestBadInput:
    @pytest.mark.parametrize(
        ("more", "named", "why"),
        [
            ({"config": {"temperature": 0.5, "thinking": True}}, "config.temperature", "thinking"),
            ({"config": {"topP": 0.5, "thinking": "low"}}, "config.topP", "thinking"),
            ({"config": {"topP": 0.5, "temperature": 0.5}}, "config.temperature", "top_p"),
            ({"outputSchema": {"type": "object", "required": "n"}}, "outputSchema.required", "'n'"),
            (
                {"outputSchema": {"type": "object", "properties": {"n": {"$ref": "#/$defs/no"}}}},
                "outputSchema",
                "$defs/no",
            ),
            (
                {"outputSchema": {"type": "object", "properties": {"n": {"pattern": "("}}}},
                "outputSchema.properties.n.pattern",
                "regex",
            ),
        ],
    )
    async def test_what_its_model_would_refuse_is_refused_at_once(
        self, stage: Stage, more: dict[str, object], named: str, why: str
    ) -> None:
        before = await stage.org.ask("GET", "/v1/runs")
        body = {"agentSlug": "claude", "message": "Do it.", **more}
        answer = await stage.org.http.post("/v1/run", json=body)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["code"] == "invalid_request"
        assert error["details"]["fields"][0]["field"] == named
        assert why in error["message"]
        assert await stage.org.ask("GET", "/v1/runs") == before

    async def test_what_the_agent_says_counts_too(self, stage: Stage) -> None:
        agent = {**AGENT, "slug": "cool", "model": "claude-haiku", "temperature": 0.5}
        await deployed(stage.org, agents=[agent])
        body = {"agentSlug": "cool", "message": "x", "config": {"thinking": "low"}}
        answer = await stage.org.http.post("/v1/run", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["details"]["fields"][0]["field"] == "config.thinking"
        await stage.run(agent="cool")
        body["config"] = {"thinking": "low", "temperature": 1}
        assert (await stage.org.http.post("/v1/run?waitSeconds=0", json=body)).status_code == 202

    async def test_what_goes_on_with_a_run_too(self, stage: Stage) -> None:
        run, _ = await stage.taken(agent="claude", config={"temperature": 0.5})
        await stage.worker.append(run, said("So far."), done("So far.", "limit_reached", limit="x"))
        path = f"/v1/runs/{run.run_id}/continue"
        answer = await stage.org.http.post(path, json={"config": {"thinking": True}})
        assert answer.status_code == 400, answer.text
        assert "takes no temperature but 1 while it thinks" in answer.json()["error"]["message"]
        assert (await stage.org.http.post(path, json={})).status_code == 201

    async def test_a_schema_that_was_looked_at_is_not_looked_at_again(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        schema = {"type": "object", "properties": {"once": {"type": "string"}}}
        await stage.run(outputSchema=schema)
        monkeypatch.setattr("runtools.platform.kit.schemas.sys.executable", "/nowhere")
        await stage.run(outputSchema=schema)
