"""A run read in the languages of front ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from runtools.testing.fake_worker import asked, called, said
from runtools.testing.run_stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def lines(stage: Stage, path: str) -> tuple[list[Any], bool, dict[str, str]]:
    """What a stream says, whether it says that it is over, and the answer's headers."""
    async with asyncio.timeout(20), stage.org.http.stream("GET", path) as stream:
        assert stream.status_code == 200
        data = [
            line.removeprefix("data: ")
            async for line in stream.aiter_lines()
            if line.startswith("data: ")
        ]
    over = data[-1] == "[DONE]"
    said_ = [json.loads(one) for one in (data[:-1] if over else data)]
    return said_, over, dict(stream.headers)


async def test_the_ai_sdks(stage: Stage) -> None:
    run, given = await stage.taken("Hello?")
    await stage.worker.finish(run, "The end.")
    chunks, over, headers = await lines(stage, f"/v1/runs/{run.run_id}/events?format=ai-sdk")
    assert over
    assert headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert chunks[0] == {"type": "start", "messageId": run.run_id}
    about = {"runId": run.run_id, "threadId": given.run.thread_id}
    assert {"type": "message-metadata", "messageMetadata": about} in chunks
    deltas = [one["delta"] for one in chunks if one["type"] == "text-delta"]
    assert "".join(deltas) == "The end."
    assert chunks[-1]["type"] == "finish"


async def test_ag_ui(stage: Stage) -> None:
    run, given = await stage.taken("Hello?")
    await stage.worker.finish(run, "The end.")
    events, _, _ = await lines(stage, f"/v1/runs/{run.run_id}/events?format=ag-ui")
    started = {"type": "RUN_STARTED", "threadId": given.run.thread_id, "runId": run.run_id}
    assert events[0] == started
    assert events[-1]["type"] == "RUN_FINISHED"
    assert events[-1]["result"]["output"] == "The end."


@pytest.mark.parametrize("kind", ["ai-sdk", "ag-ui"])
async def test_one_that_waits_for_a_person_ends_the_stream(stage: Stage, kind: str) -> None:
    run, _ = await stage.taken("Hello?")
    reading = asyncio.create_task(lines(stage, f"/v1/runs/{run.run_id}/events?format={kind}"))
    await stage.worker.append(run, said("I look."), called("bash"), asked("bash"), wait=True)
    told, _, _ = await reading
    if kind == "ai-sdk":
        assert [one["type"] for one in told[-3:]] == [
            "tool-approval-request",
            "finish-step",
            "finish",
        ]
    else:
        assert told[-1]["outcome"]["type"] == "interrupt"
        assert len(told[-1]["outcome"]["interrupts"]) == 1
    await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
    told, _, _ = await lines(stage, f"/v1/runs/{run.run_id}/events?format={kind}")
    assert told[-1]["type"] in ("abort", "RUN_FINISHED")


async def test_beginning_one_in_it(stage: Stage) -> None:
    body = {"agentSlug": "coder", "message": "x", "stream": True}

    async def begin() -> list[str]:
        path = "/v1/run?format=ai-sdk"
        async with stage.org.http.stream("POST", path, json=body) as stream:
            assert stream.headers["x-run-id"].startswith("run_")
            return [line async for line in stream.aiter_lines() if line.startswith("data: ")]

    reading = asyncio.create_task(begin())
    run, _ = await stage.next()
    await stage.worker.finish(run, "The end.")
    assert (await reading)[-1] == "data: [DONE]"


async def test_one_that_nobody_speaks(stage: Stage) -> None:
    run, _ = await stage.taken("Hello?")
    await stage.worker.finish(run)
    answer = await stage.org.http.get(f"/v1/runs/{run.run_id}/events?format=klingon")
    assert answer.status_code == 400
