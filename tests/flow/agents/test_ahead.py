"""The next question is asked while the last result is on its way into the log: what that may not change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tests.flow.agents.conftest import Stage

from runtools.errors import Conflict
from runtools.platform.agents.link import LinkLost
from runtools.platform.core.ports.worker import NewEvent, News
from runtools.testing.clock import ManualClock
from runtools.testing.fake_runs import FakeLink, FakeRun
from runtools.testing.scripted_model import Call, Do, Script
from runtools.testing.worker_process import LEDGER

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREP = Call("grep", {"pattern": "x"})


class Gate:
    """Holds a link's first append of a result until it is opened."""

    def __init__(self, link: FakeLink) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        self.failure: Exception | None = None
        self._append = link.append
        link.append = self._held  # type: ignore[method-assign]

    async def _held(self, run_id: str, lease: int, events: Sequence[NewEvent], **more: Any) -> News:
        is_result = any(event.type == "tool-result" for event in events)
        if is_result and not self.reached.is_set():
            self.reached.set()
            await self.open.wait()
            if self.failure is not None:
                raise self.failure
        return await self._append(run_id, lease, events, **more)


def pieces(run: FakeRun) -> list[tuple[int, str]]:
    """What readers were told live, with the turn."""
    return [(one.data["turn"], one.data["text"]) for one in run.deltas if one.type == "text-delta"]


async def begun(stage: Stage, script: Script, **more: Any) -> tuple[FakeRun, Gate]:
    """A run whose first result is on its way."""
    run = stage.make(**more)
    _, link = stage.worker(script)
    gate = Gate(link)
    await gate.reached.wait()
    return run, gate


async def test_nobody_hears_of_the_answer_before_the_result_stands_in_the_log(stage: Stage) -> None:
    answered = asyncio.Event()

    async def says() -> None:
        answered.set()

    script = Script([GREP], ["It is ", "done", Do(says)])
    run, gate = await begun(stage, script)
    await answered.wait()
    assert pieces(run) == []
    assert run.types()[-2:] == ["tool-call", "usage"]
    gate.open.set()
    done = await stage.runs.ended(run)
    assert done["output"] == "It is done"
    assert "".join(text for turn, text in pieces(run) if turn == 2) == "It is done"
    assert len(script.asked) == 2
    assert done["usage"]["requests"] == 2
    types = run.types()
    assert types[types.index("tool-result") :] == ["tool-result", "message", "usage", "done"]


async def test_what_a_person_says_meanwhile_is_in_the_question(stage: Stage) -> None:
    answered = asyncio.Event()

    async def says() -> None:
        answered.set()

    script = Script([GREP], (["unheard", Do(says)], ["heard"]))
    run, gate = await begun(stage, script)
    await answered.wait()
    await stage.runs.say(run, "and this")
    gate.open.set()
    done = await stage.runs.ended(run)
    assert done["output"] == "heard"
    assert pieces(run) == [(2, "heard")]
    assert "and this" in str(script.asked[2])
    assert done["usage"]["requests"] == 3  # what was not heard has cost something all the same


async def test_a_cancel_meanwhile_ends_it(stage: Stage) -> None:
    asked = asyncio.Event()

    async def says() -> None:
        asked.set()
        await asyncio.Event().wait()

    run, gate = await begun(stage, Script([GREP], ["never", Do(says)]))
    await asked.wait()
    await stage.runs.cancel(run)
    done = await stage.runs.ended(run)
    assert done["status"] == "cancelled"
    assert pieces(run) == []
    assert not gate.open.is_set()
    assert run.types().count("tool-result") == 1


async def test_where_it_is_another_s_run_by_now_nothing_of_it_is_told(stage: Stage) -> None:
    asked, dropped = asyncio.Event(), asyncio.Event()

    async def says() -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            dropped.set()

    run, gate = await begun(stage, Script([GREP], ["never", Do(says)]))
    await asked.wait()
    gate.failure = LinkLost(Conflict("another lease is the latest").message)
    gate.open.set()
    await dropped.wait()
    assert pieces(run) == []
    assert "tool-result" not in run.types()


async def test_a_run_at_its_limit_asks_nothing_ahead(stage: Stage) -> None:
    script = Script([GREP], ["too much"])
    run, gate = await begun(stage, script, limits={"max_iterations": 1})
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(script.asked) == 1
    gate.open.set()
    assert (await stage.runs.ended(run))["status"] == "limit_reached"
    assert len(script.asked) == 1


async def test_it_waits_for_the_last_of_the_calls(stage: Stage) -> None:
    await stage.sandbox.files.write(LEDGER, "")
    wait = f"until [ -s {LEDGER} ]; do sleep 0.05; done"
    script = Script([GREP, Call("bash", {"command": wait})], ["done"])
    run, gate = await begun(stage, script)
    gate.open.set()
    await stage.runs.until(lambda: "tool-result" in run.types())
    assert len(script.asked) == 1
    await stage.sandbox.files.write(LEDGER, "go")
    await stage.runs.ended(run)
    assert len(script.asked) == 2
    assert len(run.of("tool-result")) == 2


class Unheard(ManualClock):
    """Time goes on, and nobody is woken for it."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


class TestWhatNobodyHears:
    """It has been asked, and is paid for."""

    async def test_it_counts_where_the_time_is_over(self, stage: Stage) -> None:
        answered = asyncio.Event()

        async def says() -> None:
            answered.set()

        stage.clock = clock = Unheard()
        script = Script([GREP], ["unheard", Do(says)])
        run, gate = await begun(stage, script, limits={"max_seconds": 60.0})
        await answered.wait()
        clock.advance(61)
        gate.open.set()
        done = await stage.runs.ended(run)
        assert done["status"] == "limit_reached"
        assert done["limit"].startswith("max_seconds")
        assert done["usage"]["requests"] == len(script.asked) == 2
        assert run.types()[-3:] == ["tool-result", "usage", "done"]
        assert "unheard" not in str(run.log)

    async def test_it_counts_where_its_worker_is_to_end(self, stage: Stage) -> None:
        asked = asyncio.Event()

        async def says() -> None:
            asked.set()
            await asyncio.Event().wait()

        script = Script([GREP], (["unheard", Do(says)], ["done"]))
        run = stage.make()
        worker, link = stage.worker(script)
        await Gate(link).reached.wait()
        await asked.wait()
        await worker.drain(30.0)
        assert run.status == "queued"
        assert run.types()[-1] == "usage"
        stage.worker(script)
        done = await stage.runs.ended(run)
        assert done["output"] == "done"
        assert done["usage"]["requests"] == len(script.asked) == 3
        assert run.types().count("tool-result") == 1

    async def test_so_does_an_answer_that_is_not_waited_for(self, stage: Stage) -> None:
        asked = asyncio.Event()

        async def says() -> None:
            asked.set()
            await asyncio.Event().wait()

        script = Script((["half", Do(says)], ["whole"]))
        run = stage.make()
        worker, link = stage.worker(script)
        await asked.wait()
        await worker.drain(0.0)
        link.cut()  # it ends with the connection
        stage.worker(script)
        done = await stage.runs.ended(run)
        assert done["output"] == "whole"
        assert done["usage"]["requests"] == len(script.asked) == 2
