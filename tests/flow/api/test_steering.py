"""What people have to say in a run: messages, decisions, cancels, continuing; and what it may cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtools.errors import Conflict
from runtools.testing.api_world import World, holds
from runtools.testing.fake_worker import (
    Held,
    answered,
    asked,
    called,
    done,
    fake_worker,
    said,
    used,
)
from runtools.testing.run_stage import Stage, follow
from runtools.testing.tenancy.org import Org

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _error(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class TestCancel:
    async def test_one_that_nobody_has_taken_ends_at_once(
        self, platform: tuple[World, Org]
    ) -> None:
        _, org = platform
        body = {"agentSlug": "coder", "message": "x"}
        made = await org.ask("POST", "/v1/run?waitSeconds=0", json=body)
        ended = await org.ask("POST", f"/v1/runs/{made['id']}/cancel")
        assert ended["status"] == "cancelled"
        assert ended["endedAt"] is not None
        again = await org.ask("POST", f"/v1/runs/{made['id']}/cancel")
        assert again["lastSeq"] == ended["lastSeq"]
        log = [one async for one in follow(org.http, made["id"])]
        assert [one["type"] for one in log] == ["run-started", "message", "done"]

    async def test_one_that_waits_leaves_no_call_without_a_result(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(
            run,
            called("bash", "a"),
            answered("bash", "a"),
            called("bash", "b"),
            asked("bash", "b"),
            wait=True,
        )
        assert (await stage.get(run.run_id))["status"] == "waiting"
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        log = await stage.events(run.run_id)
        calls = [one["data"]["callId"] for one in log if one["type"] == "tool-call"]
        results = [one["data"]["callId"] for one in log if one["type"] == "tool-result"]
        assert sorted(calls) == sorted(results) == ["a", "b"]
        assert log[-2]["data"]["failed"]
        assert log[-1]["data"]["status"] == "cancelled"

    async def test_one_that_is_driven_is_ended_by_its_worker(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        news = await stage.worker.append(run, called("bash"))
        shown = await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        assert (shown["status"], shown["cancelRequested"]) == ("running", True)
        assert await stage.worker.poked() == run.run_id
        assert (await stage.worker.read(run, news.events[-1].seq)).cancel
        # It does not wait, nor end as if nothing had been said.
        told = await stage.worker.append(run, wait=True, seen=3)
        assert told.cancel
        assert told.events == []
        assert (await stage.worker.append(run, done("x"), seen=3)).cancel
        assert (await stage.get(run.run_id))["status"] == "running"
        await stage.worker.append(run, answered("bash"), done(status="cancelled"))
        assert (await stage.get(run.run_id))["status"] == "cancelled"

    async def test_one_whose_worker_went_is_offered_for_its_end(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.close()
        await holds(lambda: _is(stage, run.run_id, "queued"), 3)
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        async with fake_worker(stage.world.url, stage.world.token("worker")) as other:
            given = await other.take(await other.offered())
            assert given.run.cancel_requested
            run = Held(run_id=run.run_id, lease=run.lease + 1)
            await other.append(run, done(status="cancelled"))


async def _is(stage: Stage, run_id: str, status: str) -> bool:
    return bool((await stage.get(run_id))["status"] == status)


class TestApprove:
    async def test_a_decision_wakes_it_with_what_was_said(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(run, called("bash", command="rm"), asked("bash"), wait=True)
        with pytest.raises(Conflict):
            await stage.worker.append(run, said("I go on."))
        path = f"/v1/runs/{run.run_id}/approve"
        body = {"callId": "c1", "decision": "allow", "arguments": {"command": "ls"}, "reason": "ok"}
        shown = await stage.org.ask("POST", path, json=body)
        assert shown["status"] == "queued"
        run, given = await stage.take(run.run_id)
        assert run.lease == 2
        told = given.log[-1]
        assert told.type == "approval-resolved"
        assert told.data["arguments"] == {"command": "ls"}
        assert told.data["actor"].startswith("key_")
        # Again the same is answered, another decision is not taken.
        assert (await stage.org.ask("POST", path, json=body))["lastSeq"] == told.seq
        other = await stage.org.http.post(path, json={"callId": "c1", "decision": "deny"})
        assert _error(other) == (409, "already_decided")
        await stage.worker.finish(run)

    async def test_who_decides_otherwise_later_is_told_what_was_decided(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        path = f"/v1/runs/{run.run_id}/approve"
        body = {"callId": "c1", "decision": "deny", "reason": "too much"}
        await stage.org.ask("POST", path, json=body)
        same = await stage.org.http.post(path, json={"callId": "c1", "decision": "deny"})
        assert same.status_code == 200
        for late in ({"decision": "allow"}, {"decision": "deny", "reason": "not today"}):
            answer = await stage.org.http.post(path, json={"callId": "c1", **late})
            assert _error(answer) == (409, "already_decided")
            error = answer.json()["error"]
            actor = error["details"].pop("actor")
            assert actor.startswith("key_")
            said = {"decision": "deny", "reason": "too much", "arguments": None}
            assert error["details"] == said
            assert error["message"].endswith(f"decided on already: deny, by {actor}: too much")
        run, _ = await stage.take(run.run_id)
        await stage.worker.finish(run)

    async def test_one_that_came_before_the_wait_is_not_missed(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        news = await stage.worker.append(run, called("bash"), asked("bash"))
        body = {"callId": "c1", "decision": "deny", "reason": "no"}
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/approve", json=body)
        told = await stage.worker.append(run, wait=True, seen=news.events[-1].seq)
        assert [one.type for one in told.events] == ["approval-resolved"]
        assert (await stage.get(run.run_id))["status"] == "running"
        await stage.worker.finish(run)

    async def test_what_does_not_wait_cannot_be_decided(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        path = f"/v1/runs/{run.run_id}/approve"
        answer = await stage.org.http.post(path, json={"callId": "c9", "decision": "allow"})
        assert _error(answer) == (404, "not_found")
        await stage.worker.append(run, called("bash"), asked("bash"))
        await stage.worker.finish(run)
        answer = await stage.org.http.post(path, json={"callId": "c1", "decision": "allow"})
        assert _error(answer) == (409, "run_ended")

    async def test_nor_what_was_broken_off_while_it_waited(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        broken = answered("bash", output="broken off")
        await stage.worker.append(run, called("bash"), asked("bash"), broken)
        path = f"/v1/runs/{run.run_id}/approve"
        answer = await stage.org.http.post(path, json={"callId": "c1", "decision": "allow"})
        assert _error(answer) == (409, "conflict")
        await stage.worker.finish(run)

    async def test_of_two_at_once_one_counts(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        path = f"/v1/runs/{run.run_id}/approve"
        answers = await asyncio.gather(
            *(
                stage.org.http.post(path, json={"callId": "c1", "decision": decision})
                for decision in ("allow", "deny") * 3
            )
        )
        assert sorted(one.status_code for one in answers) == [200] * 3 + [409] * 3
        run, given = await stage.take(run.run_id)
        assert [one.type for one in given.log].count("approval-resolved") == 1
        await stage.worker.finish(run)


class TestSteer:
    async def test_a_message_reaches_the_worker_and_no_end_passes_it_over(
        self, stage: Stage
    ) -> None:
        run, _ = await stage.taken()
        news = await stage.worker.append(run, said("Nearly."))
        seen = news.events[-1].seq
        body = {"message": "Wait, one more.", "mode": "interrupt"}
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/messages", json=body)
        assert await stage.worker.poked() == run.run_id
        told = await stage.worker.append(run, said("Bye.", 2), done("Bye."), seen=seen)
        assert [one.data["text"] for one in told.events] == ["Wait, one more."]
        assert told.events[0].data["steering"] == "interrupt"
        assert (await stage.get(run.run_id))["status"] == "running"
        await stage.worker.append(run, said("Two.", 2), done("Two."), seen=told.events[-1].seq)
        assert (await stage.get(run.run_id))["status"] == "completed"

    async def test_it_wakes_one_that_waits(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        shown = await stage.org.ask(
            "POST", f"/v1/runs/{run.run_id}/messages", json={"message": "Never mind."}
        )
        assert shown["status"] == "queued"
        run, _ = await stage.take(run.run_id)
        await stage.worker.finish(run)

    async def test_a_repeat_is_said_once(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        path = f"/v1/runs/{run.run_id}/messages"
        for _ in range(2):
            answer = await stage.org.http.post(
                path, json={"message": "Once."}, headers={"Idempotency-Key": f"k-{run.run_id}"}
            )
            assert answer.status_code == 200
        assert (await stage.get(run.run_id))["lastSeq"] == 3
        await stage.worker.finish(run)
        late = await stage.org.http.post(path, json={"message": "Too late."})
        assert _error(late) == (409, "run_ended")


class TestContinue:
    async def test_a_limit_can_be_lifted(self, stage: Stage) -> None:
        run, given = await stage.taken(config={"maxIterations": 1, "temperature": 0.5})
        assert given.limits["max_iterations"] == 1
        end = done(status="limit_reached", limit="maxIterations")
        await stage.worker.append(run, said("Half."), used(), end)
        path = f"/v1/runs/{run.run_id}/continue"
        answer = await stage.org.http.post(path, json={"config": {"maxIterations": 9}})
        assert answer.status_code == 201, answer.text
        made = answer.json()["data"]
        assert (made["continues"], made["threadId"]) == (run.run_id, given.run.thread_id)
        run, given = await stage.take(made["id"])
        assert given.limits["max_iterations"] == 9
        assert given.config["temperature"] == 0.5
        assert [one.type for one in given.log] == ["run-started", "message"]
        assert given.log[1].data["text"] == "Go on."
        texts = [one.data["text"] for one in given.earlier if one.type == "message"]
        assert texts == ["Do it.", "Half."]
        again = await stage.org.http.post(path, json={})
        assert _error(again) == (409, "conflict")
        await stage.worker.finish(run)
        other = await stage.org.http.post(f"/v1/runs/{run.run_id}/continue", json={})
        assert _error(other) == (409, "run_illegal_move")


class TestBudgets:
    async def test_what_an_org_may_spend_in_a_month(self, stage: Stage) -> None:
        org, worker = stage.org, stage.worker
        before = (await org.ask("GET", "/v1/limits"))["used"]
        run, given = await stage.taken()
        await worker.append(run, used(inputTokens=700, outputTokens=300, costUsd="0.25"))
        await worker.append(run, used(inputTokens=700, outputTokens=300, costUsd="0.25"))
        seen = (await org.ask("GET", "/v1/limits"))["used"]
        assert seen["agentTokens"] == before["agentTokens"] + 1000
        assert seen["agentCents"] - before["agentCents"] in (25, 26)
        path = f"/v1/orgs/{org.id}/limits"
        try:
            limit = {"agentTokens": seen["agentTokens"] + 10}
            queued = await stage.run(threadId=given.run.thread_id)
            await org.ask("PATCH", path, json=limit)
            other, given = await stage.taken()
            assert given.limits["max_total_tokens"] == 10
            news = await worker.append(other, used(inputTokens=20, outputTokens=0))
            assert "tokens" in str(news.exceeded)
            await worker.finish(run)
            # One that was queued before that gets no answer more, and not one for each that is queued.
            late, given = await stage.take(queued["id"])
            assert given.limits["max_total_tokens"] == 0
            refused = await org.http.post("/v1/run", json={"agentSlug": "coder", "message": "x"})
            assert _error(refused) == (409, "quota_exceeded")
            await org.ask("PATCH", path, json={"agentTokens": 0, "agentCents": 1})
            refused = await org.http.post("/v1/run", json={"agentSlug": "coder", "message": "x"})
            assert "cents" in refused.json()["error"]["message"]
        finally:
            await org.ask("PATCH", path, json={"agentTokens": 0, "agentCents": 0})
        await worker.finish(other)
        await worker.finish(late)

    async def test_a_price_that_is_not_known_makes_no_sum(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.append(run, used(1, costUsd="0.1"), used(2, costUsd=None), used(3))
        assert (await stage.get(run.run_id))["usage"]["costUsd"] is None
        assert (await stage.get(run.run_id))["usage"]["requests"] == 3
        await stage.worker.finish(run)

    async def test_what_it_was_driven_for_is_told_on(self, stage: Stage) -> None:
        run, _ = await stage.taken(config={"maxSeconds": 60})
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/messages", json={"message": "x"})
        run, given = await stage.take(run.run_id)
        assert 0 < given.spent_seconds < 30
        assert given.limits["max_seconds"] == 60
        await stage.worker.finish(run)


class TestWebhooks:
    async def test_they_tell_of_waits_and_ends(self, stage: Stage) -> None:
        hook = await stage.org.ask(
            "POST",
            "/v1/webhooks",
            json={"url": "http://127.0.0.1:9/", "events": ["run.waiting", "run.completed"]},
        )
        run, _ = await stage.taken()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        body = {"callId": "c1", "decision": "allow"}
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/approve", json=body)
        run, _ = await stage.take(run.run_id)
        await stage.worker.finish(run)
        path = f"/v1/webhooks/{hook['id']}/deliveries"
        told = await stage.org.ask("GET", path)
        assert {one["type"] for one in told} == {"run.waiting", "run.completed"}
        await stage.org.ask("DELETE", f"/v1/webhooks/{hook['id']}")
