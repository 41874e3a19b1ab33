"""Runs that are left in the middle, and what is broken off: nothing hangs, is lost, or said to be whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart
from pydantic_ai.usage import RequestUsage
from tests.flow.agents.conftest import Stage
from tests.flow.agents.test_loop import CAREFUL, ENDPOINT, overflow, shown

from runtools.errors import HistoryChanged, HostUnavailable, RunToolsError
from runtools.platform.agents import trouble
from runtools.platform.agents import worker as workers
from runtools.platform.agents.answer import Stream
from runtools.platform.agents.held import Held
from runtools.platform.agents.tools import toolbox
from runtools.sdk.processes import AsyncProcess, AsyncProcesses
from runtools.testing.clock import ManualClock
from runtools.testing.fake_runs import FakeRun
from runtools.testing.scripted_model import Call, Do, Script, Think
from runtools.workbench import shell

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUSY = ModelHTTPError(529, "any", "overloaded")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before another try."""
    monkeypatch.setattr(workers, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(trouble, "_FIRST", 0.0)


def failing(link: Any, call: str, times: int) -> None:
    """The api fails to do something, a few times."""
    real, left = getattr(link, call), [times]

    async def tried(*given: Any, **more: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RunToolsError("the platform failed to do it")
        return await real(*given, **more)

    setattr(link, call, tried)


class TestGivenBack:
    async def test_one_that_hears_no_more_of_its_log_goes_on(self, stage: Stage) -> None:
        asked = asyncio.Event()
        waits = Do(lambda: asyncio.sleep(0 if asked.is_set() else 60))
        run = stage.make()
        _, link = stage.worker(Script(["so", waits, " it is"]))
        await stage.runs.until(lambda: run.deltas)
        failing(link, "read", 1)
        asked.set()
        await stage.runs.say(run, "hm")
        done = await stage.runs.ended(run)
        assert (done["status"], done["output"], run.lease) == ("completed", "so it is", 2)

    async def test_one_whose_end_could_not_be_said_is_ended_later(self, stage: Stage) -> None:
        run = stage.make()

        def broken(_: Any) -> Any:
            raise ValueError("no such model can be built")

        _, link = stage.worker(broken)
        failing(link, "append", 1)
        done = await stage.runs.ended(run)
        assert (done["status"], done["error"]["code"], run.lease) == ("failed", "internal", 2)

    async def test_also_when_the_api_does_not_take_it_at_first(self, stage: Stage) -> None:
        run = stage.make()
        _, link = stage.worker(Script(["done"]))
        failing(link, "append", 2)
        failing(link, "release", 3)
        assert (await stage.runs.ended(run))["status"] == "completed"
        assert run.lease == 2

    async def test_what_it_has_left_running_ends_with_it(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = stage.make()
        stage.worker(Script([Call("bash", {"command": "echo begun; sleep 60"})], ["done"]))
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))

        def broken(*_: Any) -> Any:
            raise ValueError("a fault of the loop")

        monkeypatch.setattr("runtools.platform.agents.carrying._ask_people", broken)
        await stage.runs.say(run, "hm")
        assert (await stage.runs.ended(run))["error"]["code"] == "internal"
        assert (await stage.sandbox.processes.get(f"{run.id}.1.0")).view.signal == 9


class TestOwed:
    """What a worker could not end is told to the api with the call's result, which ends it later."""

    @pytest.fixture(autouse=True)
    def away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fails(*_: Any) -> Any:
            raise HostUnavailable("it is away")

        monkeypatch.setattr(AsyncProcesses, "end", fails)
        monkeypatch.setattr(AsyncProcess, "kill", fails)
        monkeypatch.setattr(toolbox, "_TRIES", 1)

    async def begun(self, stage: Stage, run: FakeRun, **more: Any) -> None:
        """It has a command under way."""
        command = {"command": "echo begun; sleep 60", **more}
        stage.worker(Script([Call("bash", command)], ["as you wish"]))
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))

    async def is_owed_after_an_interrupt(self, stage: Stage) -> None:
        run = stage.make()
        await self.begun(stage, run)
        await stage.runs.say(run, "stop that", "interrupt")
        assert (await stage.runs.ended(run))["output"] == "as you wish"
        assert run.left == [f"{run.id}.1.0"]
        assert "may run on for now" in run.of("tool-result")[0]["output"]

    async def test_what_an_interrupt_breaks_off(self, stage: Stage) -> None:
        await self.is_owed_after_an_interrupt(stage)

    async def test_its_result_says_so_also_where_something_is_appended_meanwhile(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Held.stop_calls

        async def stop(run: Held) -> None:
            await real(run)
            await run.append([])

        monkeypatch.setattr(Held, "stop_calls", stop)
        await self.is_owed_after_an_interrupt(stage)

    async def test_what_is_over_its_time(self, stage: Stage) -> None:
        run = stage.make()
        await self.begun(stage, run, timeout_seconds=1)
        assert (await stage.runs.ended(run))["output"] == "as you wish"
        assert run.left == [f"{run.id}.1.0"]
        [result] = run.of("tool-result")
        assert result["failed"]
        assert "may run on for now" in result["output"]

    async def test_what_is_given_up(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(toolbox, "_LONGEST_SECONDS", 1.0)
        run = stage.make()
        await self.begun(stage, run)
        assert (await stage.runs.ended(run))["output"] == "as you wish"
        assert run.left == [f"{run.id}.1.0"]
        assert "was given up" in run.of("tool-result")[0]["output"]

    async def test_what_a_cancel_breaks_off(self, stage: Stage) -> None:
        run = stage.make()
        await self.begun(stage, run)
        await stage.runs.cancel(run)
        assert (await stage.runs.ended(run))["status"] == "cancelled"
        assert run.left == [f"{run.id}.1.0"]

    async def test_what_a_loop_that_fails_has_begun(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = stage.make()
        await self.begun(stage, run)

        def broken(*_: Any) -> Any:
            raise ValueError("a fault of the loop")

        monkeypatch.setattr("runtools.platform.agents.carrying._ask_people", broken)
        await stage.runs.say(run, "hm")
        assert (await stage.runs.ended(run))["error"]["code"] == "internal"
        assert run.left == [f"{run.id}.1.0"]


class TestEnded:
    async def test_what_could_be_ended_is_not_owed(self, stage: Stage) -> None:
        run = stage.make()
        command = {"command": "echo begun; sleep 60"}
        stage.worker(Script([Call("bash", command)], ["as you wish"]))
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))
        await stage.runs.say(run, "stop that", "interrupt")
        await stage.runs.ended(run)
        assert run.left == []

    async def test_what_fails_to_be_followed_ends(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever it fails with: its result says that it failed, and nobody comes back to it."""

        async def fails(*_: Any) -> Any:
            raise HistoryChanged("it was rolled back")

        monkeypatch.setattr(shell, "_follow", fails)
        run = await stage.played(Script([Call("bash", {"command": "sleep 60"})], ["done"]))
        assert run.of("tool-result")[0]["failed"]
        assert (await stage.sandbox.processes.get(f"{run.id}.1.0")).view.signal == 9

    async def test_a_command_that_a_person_made_of_a_return_to_one(self, stage: Stage) -> None:
        run = stage.make(agent=CAREFUL)
        stage.worker(Script([Call("bash", {"process_id": "another"})], ["as you wish"]))
        await stage.runs.until(lambda: run.status == "waiting")
        edited = {"command": "echo begun; sleep 60", "process_id": None}
        await stage.runs.decide(run, "call-0-0", "allow", arguments=edited)
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))
        await stage.runs.say(run, "stop that", "interrupt")
        await stage.runs.ended(run)
        assert (await stage.sandbox.processes.get(f"{run.id}.1.0")).view.signal == 9


class TestStopped:
    async def test_nothing_is_made_to_stop_what_never_began(self, stage: Stage) -> None:
        made: list[FakeRun] = []

        async def place(run: FakeRun) -> str:
            made.append(run)
            return stage.sandbox.id

        stage.runs.place = place
        run = stage.runs.make("do it", agent=CAREFUL, token=stage.key)
        stage.worker(Script([Call("bash", {"command": "echo ran"})], ["done"]))
        await stage.runs.until(lambda: run.status == "waiting")
        await stage.runs.cancel(run)
        assert (await stage.runs.ended(run))["status"] == "cancelled"
        assert made == []

    @pytest.mark.parametrize("why", ["cancel", "limit"])
    async def test_half_an_answer_stands_there_with_its_end_or_not_at_all(
        self, stage: Stage, why: str
    ) -> None:
        seen: list[list[str]] = []
        stage.clock = clock = ManualClock()  # the time is over when it has begun, on any machine
        run = stage.make(limits={"max_seconds": 60.0})
        script = Script(["half an answer", Do(lambda: asyncio.sleep(60))])
        stage.worker(script, after=lambda run: seen.append(run.types()))
        await stage.runs.until(lambda: run.deltas)
        if why == "cancel":
            await stage.runs.cancel(run)
        else:
            clock.advance(61)
        done = await stage.runs.ended(run)
        assert done["status"] == ("cancelled" if why == "cancel" else "limit_reached")
        assert done["output"] == "half an answer"
        [types] = seen
        assert types == ["run-started", "message", "message", "usage", "done"]

    async def test_what_it_took_is_counted(self, stage: Stage) -> None:
        run = stage.make()
        stage.worker(Script(["half an answer", Do(lambda: asyncio.sleep(60))], ["whole"]))
        await stage.runs.until(lambda: run.deltas)
        await stage.runs.say(run, "no", "interrupt")
        done = await stage.runs.ended(run)
        half, whole = run.of("usage")
        assert half["requests"] == 1
        assert half["inputTokens"] > 0
        assert done["usage"] == whole["total"]
        assert done["usage"]["inputTokens"] == half["inputTokens"] + whole["inputTokens"]

    async def test_each_request_of_a_turn_is_an_attempt_of_its_own(self, stage: Stage) -> None:
        run = stage.make()
        thinks = [Think("hm"), Do(lambda: asyncio.sleep(60))]
        stage.worker(Script([thinks, thinks, ["done"]]))
        for count in (1, 2):
            await stage.runs.until(lambda count=count: len(run.deltas) == count)
            await stage.runs.say(run, "no", "interrupt")
        await stage.runs.ended(run)
        assert [one.data["attempt"] for one in run.deltas] == [1, 2, 3]
        assert len(run.of("usage")) == 3


class TestThoughts:
    async def test_thoughts_that_reach_the_limit_are_no_empty_answer(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        thoughts = ModelResponse(
            parts=[ThinkingPart(content="long thoughts")],
            finish_reason="length",
            usage=RequestUsage(input_tokens=7, output_tokens=5),
        )
        whole = ModelResponse(parts=[TextPart(content="so")], finish_reason="stop")
        answers = [thoughts, whole]

        async def answered(_stream: Stream, messages: list[Any]) -> ModelResponse:
            script.asked.append(messages)
            return answers.pop(0)

        script = Script([])
        monkeypatch.setattr(Stream, "run", answered)
        run = await stage.played(script)
        assert run.done["status"] == "limit_reached"
        assert run.done["limit"].startswith("max_tokens")
        assert run.of("message")[1]["thinking"] == "long thoughts"
        assert run.of("error") == []
        again = await stage.played(script, message="go on", earlier=run.log)
        assert again.done["output"] == "so"
        # No provider takes thoughts back that stand alone.
        assert not any(isinstance(one, ModelResponse) for one in script.asked[-1])
        assert shown(script.asked[-1]) == ["do it", "go on"]


class TestSummaries:
    async def test_one_that_fails_is_asked_for_again_and_each_is_counted(
        self, stage: Stage
    ) -> None:
        call = Call("grep", {"pattern": "x"})
        tries = [[call], ["hal", BUSY], [overflow()], ["the summary"], ["end"]]
        run = await stage.played(Script(tries, [[overflow()], ["x"]]), model=ENDPOINT)
        [compaction] = run.of("compaction")
        assert compaction["summary"] == "the summary"
        [error] = run.of("error")
        assert error["retrying"] is not None
        assert run.done["output"] == "end"
        assert run.done["usage"]["requests"] == sum(one["requests"] for one in run.of("usage"))
        assert len(run.of("usage")) >= 4  # two answers, the summary, and the one that broke off

    async def test_what_is_said_meanwhile_stands_after_it(self, stage: Stage) -> None:
        async def speak() -> None:
            await stage.runs.say(run, "and also this")

        run = stage.make("the question", model=ENDPOINT)
        call = Call("grep", {"pattern": "x"})
        script = Script(
            [[call], ["the summary", Do(speak)], ["first"], ["end"]], [[overflow()], ["end"]]
        )
        stage.worker(script)
        await stage.runs.ended(run)
        after = shown(script.asked[3])
        assert "the question" in after[0]
        assert "and also this" not in after[0]
        assert after[-1] == "and also this"

    async def test_a_window_that_is_known_is_kept_to(self, stage: Stage) -> None:
        small = ENDPOINT.model_copy(update={"context_window": 60})
        script = Script([[Call("grep", {"pattern": "x"})], ["the summary"], ["end"]])
        run = await stage.played(script, model=small)
        assert [one["summary"] for one in run.of("compaction")] == ["the summary"]
        assert (run.done["output"], run.of("error")) == ("end", [])

    async def test_one_that_is_cut_off_is_none(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However short an agent's answers are to be, a summary is whole."""
        real, asked = Stream.run, []

        async def run(stream: Stream, messages: list[Any]) -> ModelResponse:
            response = await real(stream, messages)
            if stream._on_delta is not None:
                return response
            asked.append(stream._asked.settings)
            return replace(response, finish_reason="length" if len(asked) == 1 else "stop")

        monkeypatch.setattr(Stream, "run", run)
        call = Call("grep", {"pattern": "x"})
        script = Script(
            [[call], ["half a summ"], ["the summary"], ["end"]], [[overflow()], ["end"]]
        )
        done = await stage.played(
            script, model=ENDPOINT, agent={"max_tokens": 99, "temperature": 0.5}
        )
        assert [one["summary"] for one in done.of("compaction")] == ["the summary"]
        assert asked == [{"temperature": 0.5}] * 2
        assert script.infos[0].model_settings == {"max_tokens": 99, "temperature": 0.5}


class TestMoney:
    async def test_a_limit_that_cannot_be_held_is_refused(self, stage: Stage) -> None:
        for more in ({"agent": {"max_cost_usd": 1.0}}, {"config": {"max_cost_usd": 1.0}}):
            run = await stage.played(Script(["x"]), model=ENDPOINT, **more)
            assert run.done["error"]["code"] == "invalid_request"
            assert "max_cost_usd cannot be held" in run.done["error"]["message"]
            assert run.of("usage") == []
        run = await stage.played(Script(["x"]), agent={"max_cost_usd": 1.0})
        assert run.done["status"] == "completed"


class TestPieces:
    async def test_a_long_log_is_taken_up_piece_by_piece(self, stage: Stage) -> None:
        stage.runs.piece = 1
        call = Call("bash", {"command": "echo 42"})
        first = await stage.played(Script([call], ["it is 42"]))
        run = stage.make("sure?", earlier=first.log)
        script = Script([], [], [call], ["yes"])
        for worker, link in stage.workers:
            link.cut()
            await worker.abandon()
        _, link = stage.worker(script)
        failing(link, "append", 2)  # its answer, and that this failed, cannot be said at first
        await stage.runs.ended(run)
        assert (run.done["status"], run.done["output"], run.lease > 1) == ("completed", "yes", True)
        found = "42\n[exit code 0]"
        assert shown(script.asked[-1]) == ["do it", found, "sure?", found]
