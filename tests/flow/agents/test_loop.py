"""The loop: what a run's log says of each thing that can happen in it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import BinaryContent, ModelRequest, ToolReturnPart, UserPromptPart
from tests.flow.agents.conftest import Stage

from runtools.platform.core.ports.worker import ModelAccess
from runtools.sdk.sandbox import AsyncSandbox
from runtools.testing.clock import ManualClock
from runtools.testing.scripted_model import Call, Do, Script, Think
from runtools.workbench import shell

pytestmark = pytest.mark.asyncio(loop_scope="module")

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CAREFUL = {"permissions": {"bash": "ask", "delete_*": "deny"}}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
ENDPOINT = ModelAccess(provider="mine", api_id="any", base_url="http://127.0.0.1:1/v1")


def overflow() -> ModelHTTPError:
    """What a server says to a prompt that is too long for it."""
    return ModelHTTPError(400, "any", "the prompt exceeds the context window")


def shown(messages: list[Any]) -> list[str]:
    """All texts that a model was shown by people and tools."""
    found: list[str] = []
    for message in messages:
        if isinstance(message, ModelRequest):
            for part in message.parts:
                if isinstance(part, UserPromptPart):
                    given = [part.content] if isinstance(part.content, str) else part.content
                    found += [one for one in given if isinstance(one, str)]
                elif isinstance(part, ToolReturnPart):
                    found.append(str(part.content))
    return found


class TestAnswers:
    async def test_a_text_ends_the_run(self, stage: Stage) -> None:
        run = await stage.played(Script([Think("hm"), "Hello ", "there"]))
        assert run.types() == ["run-started", "message", "message", "usage", "done"]
        assert run.done["status"] == "completed"
        assert run.done["output"] == "Hello there"
        assert run.done["iterations"] == 1
        assert run.of("message")[1]["thinking"] == "hm"
        pieces = [(delta.type, delta.data["text"]) for delta in run.deltas]
        assert pieces == [("thinking", "hm"), ("text-delta", "Hello "), ("text-delta", "there")]
        assert {delta.data["attempt"] for delta in run.deltas} == {1}

    async def test_calls_are_made_side_by_side_and_shown_in_order(self, stage: Stage) -> None:
        slow = "for n in $(seq 200); do [ -e /tmp/other ] && exit; sleep 0.05; done; exit 1"
        script = Script(
            [
                Call("bash", {"command": slow}),
                Call("bash", {"command": "touch /tmp/other; echo b"}),
            ],
            ["done"],
        )
        run = await stage.played(script)
        results = run.of("tool-result")
        assert {one["callId"] for one in results} == {"call-0-0", "call-0-1"}
        assert all(
            "[exit code 0]" in one["output"] for one in results
        )  # the first waits for the second
        returned = [
            part.tool_call_id
            for message in script.asked[1]
            for part in message.parts
            if isinstance(part, ToolReturnPart)
        ]
        assert returned == ["call-0-0", "call-0-1"]

    async def test_a_command_streams_what_it_writes(self, stage: Stage) -> None:
        run = await stage.played(Script([Call("bash", {"command": "echo héllo"})], ["done"]))
        told = [one.data["text"] for one in run.deltas if one.type == "tool-output-delta"]
        assert "".join(told) == "héllo\n"

    async def test_two_edits_of_a_file_at_once_are_both_in_it(self, stage: Stage) -> None:
        await stage.sandbox.files.write("/workspace/two", "one\ntwo\n")
        edits = [
            Call("edit_file", {"path": "two", "old": "one", "new": "1"}),
            Call("edit_file", {"path": "two", "old": "two", "new": "2"}),
        ]
        await stage.played(Script(edits, ["done"]))
        assert await stage.sandbox.files.read("/workspace/two") == b"1\n2\n"

    async def test_usage_is_added_up(self, stage: Stage) -> None:
        run = await stage.played(Script([Call("grep", {"pattern": "x"})], ["done"]))
        first, second = run.of("usage")
        assert second["total"]["requests"] == 2
        assert second["total"]["inputTokens"] == first["inputTokens"] + second["inputTokens"]
        assert run.done["usage"] == second["total"]


class TestMistakes:
    async def test_what_the_model_can_put_right_it_is_told(self, stage: Stage) -> None:
        script = Script(
            [Call("no_such", {})],
            [Call("bash", raw='{"command": "ec')],
            [Call("bash", {"line": "x"})],
            ["sorry"],
        )
        run = await stage.played(script)
        unknown, cut, invalid = run.of("tool-result")
        assert "there is no tool 'no_such'; there are: bash" in unknown["output"]
        assert "no JSON object" in cut["output"]
        assert "invalid parameters" in invalid["output"]
        assert all(one["failed"] for one in (unknown, cut, invalid))
        assert run.done["status"] == "completed"

    async def test_ids_that_come_twice_are_told_apart(self, stage: Stage) -> None:
        again = [Call("grep", {"pattern": "a"}, id="0"), Call("grep", {"pattern": "b"}, id="0")]
        run = await stage.played(Script(again, again, ["done"]))
        ids = [one["callId"] for one in run.of("tool-call")]
        assert len(set(ids)) == 4
        assert sorted(one["callId"] for one in run.of("tool-result")) == sorted(ids)

    async def test_an_empty_answer_is_asked_for_again(self, stage: Stage) -> None:
        run = await stage.played(Script([[""], ["now"]]))
        [error] = run.of("error")
        assert error["code"] == "model_empty"
        assert error["retrying"] > 0
        assert run.done["output"] == "now"

    async def test_one_that_is_always_empty_ends_it(self, stage: Stage) -> None:
        run = await stage.played(Script([""]))
        assert run.done["status"] == "failed"
        assert run.done["error"]["code"] == "model_empty"
        assert len(run.of("error")) == 2


class TestProviders:
    async def test_overload_is_waited_out_as_told(self, stage: Stage) -> None:
        busy = ModelHTTPError(529, "any", "overloaded")
        run = await stage.played(Script([["half", busy], ["whole"]]))
        [error] = run.of("error")
        assert error["code"] == "model_unavailable"
        assert run.done["output"] == "whole"
        attempts = {one.data["attempt"]: one.data["text"] for one in run.deltas}
        assert attempts == {1: "half", 2: "whole"}
        assert [one.data["offset"] for one in run.deltas] == [0, 0]

    async def test_each_piece_says_where_it_stands(self, stage: Stage) -> None:
        run = await stage.played(Script([Think("hm"), Think("."), "Gö", "d", " day"]))
        pieces = [(one.type, one.data["text"], one.data["offset"]) for one in run.deltas]
        assert [one for one in pieces if one[0] == "text-delta"] == [
            ("text-delta", "Gö", 0),
            ("text-delta", "d", 2),
            ("text-delta", " day", 3),
        ]
        thoughts = [(text, offset) for kind, text, offset in pieces if kind == "thinking"]
        assert thoughts == [("hm", 0), ("\n.", 2)]
        assert run.of("message")[1]["thinking"] == "hm\n."  # what front ends have shown already

    @pytest.mark.parametrize(
        ("status", "code"), [(401, "rejected"), (404, "rejected"), (400, "rejected")]
    )
    async def test_what_another_try_would_not_mend_ends_it(
        self, stage: Stage, status: int, code: str
    ) -> None:
        run = await stage.played(Script([ModelHTTPError(status, "any", "no")]))
        assert run.done["status"] == "failed"
        assert code in run.done["error"]["code"]
        assert run.of("error") == []

    async def test_no_message_holds_the_key(self, stage: Stage) -> None:
        access = ENDPOINT.model_copy(update={"api_key": "sk-secret"})
        said = ModelHTTPError(400, "any", "bad key sk-secret")
        run = await stage.played(Script([said]), model=access)
        assert "sk-secret" not in str(run.log)
        assert "[key]" in run.done["error"]["message"]

    async def test_too_long_a_conversation_is_summed_up(self, stage: Stage) -> None:
        call = Call("bash", {"command": "echo the-result"})
        script = Script([[call], ["the summary"], ["end"]], [[overflow()], ["x"]])
        run = await stage.played(script, model=ENDPOINT, message="the question")
        [compaction] = run.of("compaction")
        assert compaction["summary"] == "the summary"
        assert "the-result" in shown(script.asked[2])[0]
        after = shown(script.asked[3])
        assert "the summary" in after[0]
        assert "the question" in after[0]
        assert run.done["output"] == "end"

    async def test_but_never_in_a_loop(self, stage: Stage) -> None:
        call = Call("grep", {"pattern": "x"})
        tries = [[call], ["summary"], [overflow()]]
        run = await stage.played(Script(tries, [overflow()]), model=ENDPOINT)
        assert len(run.of("compaction")) == 1
        assert run.done["error"]["code"] == "context_overflow"


class TestLimits:
    async def test_iterations(self, stage: Stage) -> None:
        run = await stage.played(
            Script([Call("grep", {"pattern": "x"})]), limits={"max_iterations": 3}
        )
        assert run.done["status"] == "limit_reached"
        assert run.done["limit"].startswith("max_iterations: 3")
        assert run.done["iterations"] == 3
        assert len(run.of("tool-result")) == 3

    async def test_tokens(self, stage: Stage) -> None:
        run = await stage.played(
            Script([Call("grep", {"pattern": "x"})]), limits={"max_total_tokens": 100}
        )
        assert run.done["limit"].startswith("max_total_tokens")
        assert run.done["iterations"] == 2

    async def test_money(self, stage: Stage) -> None:
        access = ModelAccess(provider="openai", api_id="gpt-5", api_key="k")
        run = await stage.played(
            Script([Call("grep", {"pattern": "x"})]), model=access, limits={"max_cost_usd": 0.0003}
        )
        assert run.done["limit"].startswith("max_cost_usd")
        assert float(run.done["usage"]["costUsd"]) >= 0.0003

    async def test_time_breaks_off_what_is_under_way(self, stage: Stage) -> None:
        stage.clock = clock = ManualClock()  # the time is over when it has begun, on any machine
        run = stage.make(limits={"max_seconds": 60.0})
        stage.worker(Script([Call("bash", {"command": "echo begun; sleep 60"})]))
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))
        clock.advance(61)
        await stage.runs.ended(run)
        assert run.done["limit"].startswith("max_seconds")
        [result] = run.of("tool-result")
        assert "time" in result["output"]
        assert (await stage.sandbox.processes.get(f"{run.id}.1.0")).state == "ended"


class TestBound:
    async def test_a_call_that_comes_to_no_end_is_given_up(self, stage: Stage) -> None:
        """Long after a command's own time; what it has left running is ended."""
        stage.clock = clock = ManualClock()
        command = "echo begun; sleep 7200"
        given = {"command": command, "timeout_seconds": shell.MAX_SECONDS}
        run = stage.make()
        stage.worker(Script([Call("bash", given)], ["I see"]))
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))
        clock.advance(shell.MAX_SECONDS + 600)  # a sandbox may have been made for it first
        process = await stage.sandbox.processes.get(f"{run.id}.1.0")
        assert process.state == "running"
        assert run.of("tool-result") == []
        clock.advance(600)
        done = await stage.runs.ended(run)
        assert done["output"] == "I see"
        [result] = run.of("tool-result")
        assert (result["output"], result["failed"]) == (
            "bash came to no end, and was given up",
            True,
        )
        assert (await process.refresh()).state == "ended"


class TestPeople:
    async def test_cancel_ends_the_command_and_leaves_no_call_open(self, stage: Stage) -> None:
        run = stage.make()
        stage.worker(Script(["wait", Call("bash", {"command": "echo begun; sleep 60"})]))
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))
        await stage.runs.cancel(run)
        done = await stage.runs.ended(run)
        assert done["status"] == "cancelled"
        [result] = run.of("tool-result")
        assert result["output"].startswith("cancelled")
        process = await stage.sandbox.processes.get(f"{run.id}.1.0")
        assert process.view.signal == 9

    @pytest.mark.parametrize("how", ["cancel", "interrupt"])
    async def test_a_search_ends_likewise(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        real, ended, mark = AsyncSandbox.exec, asyncio.Event(), f"searching-{how}"

        async def slow(sandbox: AsyncSandbox, words: Any, **more: Any) -> Any:
            return await real(sandbox, ["sh", "-c", f"touch {mark}; exec sleep 60"], **more)

        signalled = AsyncSandbox.signal_exec

        async def told(sandbox: AsyncSandbox, process_id: str, signal: Any) -> None:
            await signalled(sandbox, process_id, signal)  # of one that does not run an error
            ended.set()

        monkeypatch.setattr(AsyncSandbox, "exec", slow)
        monkeypatch.setattr(AsyncSandbox, "signal_exec", told)
        run = stage.make()
        stage.worker(Script([Call("grep", {"pattern": "x"})], ["done"]))
        async with asyncio.timeout(20):
            while not any(
                one.path.endswith(mark) for one in (await stage.sandbox.files.list()).entries
            ):
                await asyncio.sleep(0.01)
        if how == "cancel":
            await stage.runs.cancel(run)
        else:
            await stage.runs.say(run, "stop that", "interrupt")
        await stage.runs.ended(run)
        assert ended.is_set()

    async def test_cancel_keeps_what_was_half_said(self, stage: Stage) -> None:
        run = stage.make()
        forever = Do(lambda: asyncio.sleep(60))
        stage.worker(Script(["half an answer", forever]))
        await stage.runs.until(lambda: run.deltas, 5)
        await stage.runs.cancel(run)
        done = await stage.runs.ended(run)
        assert done["status"] == "cancelled"
        assert done["output"] == "half an answer"

    async def test_a_message_waits_for_its_turn(self, stage: Stage) -> None:
        run = stage.make()

        async def speak() -> None:
            await stage.runs.say(run, "and also this")

        script = Script(["first", Do(speak)], ["second"])
        stage.worker(script)
        done = await stage.runs.ended(run)
        assert done["output"] == "second"
        assert done["iterations"] == 2
        assert shown(script.asked[0]) == ["do it"]
        assert shown(script.asked[1]) == ["do it", "and also this"]

    async def test_or_interrupts(self, stage: Stage) -> None:
        run = stage.make()
        script = Script([Call("bash", {"command": "echo begun; sleep 60"})], ["as you wish"])
        stage.worker(script)
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))
        await stage.runs.say(run, "stop that", "interrupt")
        done = await stage.runs.ended(run)
        assert done["output"] == "as you wish"
        assert shown(script.asked[1])[1:] == [run.of("tool-result")[0]["output"], "stop that"]
        assert "broken off" in run.of("tool-result")[0]["output"]

    async def test_an_answer_that_is_interrupted_stays(self, stage: Stage) -> None:
        run = stage.make()
        script = Script(["I think that", Do(lambda: asyncio.sleep(60))], ["as you wish"])
        stage.worker(script)
        await stage.runs.until(lambda: run.deltas, 5)
        await stage.runs.say(run, "no", "interrupt")
        done = await stage.runs.ended(run)
        assert done["output"] == "as you wish"
        assert [one["text"] for one in run.of("message")][-2:] == ["I think that", "as you wish"]
        assert shown(script.asked[1]) == ["do it", "no"]


class TestApprovals:
    async def test_others_are_made_at_once_and_the_run_waits(self, stage: Stage) -> None:
        run = stage.make(agent=CAREFUL)
        calls = [Call("bash", {"command": "echo ran"}), Call("grep", {"pattern": "x"})]
        worker, _ = stage.worker(Script(calls, ["done"]))
        await stage.runs.until(lambda: run.status == "waiting")
        assert [one["name"] for one in run.of("tool-result")] == ["grep"]
        assert [one["name"] for one in run.of("approval-requested")] == ["bash"]
        await stage.runs.until(lambda: worker.runs == 0)
        await stage.runs.decide(run, "call-0-0", "allow", arguments={"command": "echo edited"})
        await stage.runs.ended(run)
        output = run.of("tool-result")[1]["output"]
        assert "a person changed the arguments" in output
        assert output.endswith("edited\n[exit code 0]")

    async def test_a_refusal_is_told(self, stage: Stage) -> None:
        run = stage.make(agent=CAREFUL)
        stage.worker(Script([Call("bash", {"command": "echo ran"})], ["done"]))
        await stage.runs.until(lambda: run.status == "waiting")
        await stage.runs.decide(run, "call-0-0", "deny", reason="not today")
        await stage.runs.ended(run)
        assert run.of("tool-result")[0]["output"] == "a person has refused this call: not today"

    async def test_a_decision_while_others_run_is_not_lost(self, stage: Stage) -> None:
        run = stage.make(agent={"permissions": {"grep": "ask"}})
        calls = [Call("grep", {"pattern": "x"}), Call("bash", {"command": "echo begun; sleep 0.3"})]
        stage.worker(Script(calls, ["done"]))
        await stage.runs.until(lambda: any("begun" in str(one.data) for one in run.deltas))
        await stage.runs.decide(run, "call-0-0", "allow")
        await stage.runs.ended(run)
        assert run.lease == 1
        assert len(run.of("tool-result")) == 2

    async def test_cancel_while_it_waits(self, stage: Stage) -> None:
        run = stage.make(agent=CAREFUL)
        stage.worker(Script([Call("bash", {"command": "echo ran"})], ["done"]))
        await stage.runs.until(lambda: run.status == "waiting")
        await stage.runs.cancel(run)
        assert (await stage.runs.ended(run))["status"] == "cancelled"
        assert run.of("tool-result")[0]["output"].startswith("cancelled")

    async def test_what_is_denied_is_not_offered_and_not_done(self, stage: Stage) -> None:
        script = Script([Call("delete_file", {"path": "/workspace"})], ["done"])
        run = await stage.played(script, agent=CAREFUL)
        assert "delete_file" not in [tool.name for tool in script.infos[0].function_tools]
        assert "may not be used" in run.of("tool-result")[0]["output"]


class TestStructured:
    async def test_a_result_that_fits_ends_the_run(self, stage: Stage) -> None:
        script = Script(
            ["thinking aloud"],
            [Call("final_answer", {"n": "seven"})],
            [Call("grep", {"pattern": "x"}), Call("final_answer", {"n": 7})],
        )
        run = await stage.played(script, output_schema=SCHEMA)
        assert run.done["structured"] == {"n": 7}
        assert run.done["output"] == '{"n": 7}'
        refused, _, taken = run.of("tool-result")
        assert "it does not fit: $.n: 'seven' is not of type 'integer'" in refused["output"]
        assert taken["output"] == "taken"
        assert any("calling final_answer" in text for text in shown(script.asked[1]))

    @pytest.mark.parametrize("must", [["n"], []])
    async def test_what_is_no_object_is_no_result(self, stage: Stage, must: list[str]) -> None:
        schema = {"type": "object", "properties": SCHEMA["properties"], "required": must}
        script = Script([Call("final_answer", raw='{"n": ')], [Call("final_answer", {"n": 7})])
        run = await stage.played(script, output_schema=schema)
        assert run.done["structured"] == {"n": 7}
        refused, _ = run.of("tool-result")
        assert "no JSON object" in refused["output"]

    @pytest.mark.parametrize(
        ("wrong", "why"),
        [
            ({"pattern": "^(a+)+$"}, "takes more than 1 s"),
            ({"$ref": "#/$defs/a"}, "takes more than 1 s"),
            ({"type": "no-such-type"}, "is wrong: 'no-such-type' is not valid"),
            ({"$ref": "#/$defs/nothing"}, "is wrong: "),
        ],
    )
    async def test_a_schema_that_cannot_be_checked_ends_the_run_alone(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], why: str
    ) -> None:
        monkeypatch.setattr("runtools.platform.kit.schemas.SECONDS", 1)
        links = {f"a{n or ''}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)}
        schema = {"type": "object", "properties": {"n": wrong}, "$defs": {**links, "a60": {}}}
        script = Script([Call("final_answer", {"n": "a" * 50 + "!"})], ["never"])
        run = await stage.played(script, output_schema=schema)
        assert run.done["status"] == "failed"
        assert run.done["error"]["code"] == "invalid_request"
        assert why in run.done["error"]["message"]
        assert len(run.of("tool-result")) == 1

    async def test_without_one_it_fails(self, stage: Stage) -> None:
        run = await stage.played(Script(["no"]), output_schema=SCHEMA)
        assert run.done["error"]["code"] == "output_missing"
        assert run.done["iterations"] == 3

    async def test_but_what_a_person_says_begins_anew(self, stage: Stage) -> None:
        run = stage.make(output_schema=SCHEMA)

        async def speak() -> None:
            await stage.runs.say(run, "hm")

        stage.worker(Script(["no"], ["no", Do(speak)], ["no"]))
        done = await stage.runs.ended(run)
        assert (done["error"]["code"], done["iterations"]) == ("output_missing", 4)


class TestPictures:
    async def test_in_a_message_and_from_a_file(self, stage: Stage) -> None:
        await stage.sandbox.files.write("/workspace/dot.png", PNG)
        script = Script([Call("read_file", {"path": "dot.png"})], ["a dot"])
        picture = {"mediaType": "image/png", "data": base64.b64encode(PNG).decode()}
        run = await stage.played(script, model=ENDPOINT, images=[picture])
        seen = [
            part
            for message in script.asked[1]
            if isinstance(message, ModelRequest)
            for one in message.parts
            if isinstance(one, UserPromptPart) and not isinstance(one.content, str)
            for part in one.content
            if isinstance(part, BinaryContent)
        ]
        assert [one.data for one in seen] == [PNG, PNG]
        assert run.of("tool-result")[0]["images"][0]["mediaType"] == "image/png"

    async def test_one_that_is_broken_is_told_of(self, stage: Stage) -> None:
        """Also in a thread that has one from before anybody looked."""
        await stage.sandbox.files.write("/workspace/half.png", PNG[:40])
        script = Script([Call("read_file", {"path": "half.png"})], ["it is broken"])
        picture = {"mediaType": "image/png", "data": base64.b64encode(b"<svg/>").decode()}
        run = await stage.played(script, model=ENDPOINT, images=[picture])
        [result] = run.of("tool-result")
        assert result["failed"]
        assert "begins like image/png and is not whole" in result["output"]
        assert any("cannot be shown: it is no PNG" in text for text in shown(script.asked[0]))

    async def test_a_model_that_cannot_see_is_told_so(self, stage: Stage) -> None:
        script = Script(["I cannot see it"])
        picture = {"mediaType": "image/png", "data": base64.b64encode(PNG).decode()}
        await stage.played(script, images=[picture])
        assert any("cannot see pictures" in text for text in shown(script.asked[0]))


class TestThreads:
    async def test_the_next_run_knows_the_one_before(self, stage: Stage) -> None:
        first = await stage.played(Script([Call("bash", {"command": "echo 42"})], ["it is 42"]))
        script = Script([], [], ["yes, 42"])
        second = await stage.played(script, message="sure?", earlier=first.log)
        assert second.done["output"] == "yes, 42"
        assert shown(script.asked[0]) == ["do it", "42\n[exit code 0]", "sure?"]

    async def test_one_that_reached_a_limit_is_continued(self, stage: Stage) -> None:
        call = Call("bash", {"command": "echo 42"})
        first = await stage.played(Script([call]), limits={"max_iterations": 1})
        script = Script([], ["it is 42"])
        second = await stage.played(script, message="go on", earlier=first.log)
        assert second.done["output"] == "it is 42"
        assert shown(script.asked[0]) == ["do it", "42\n[exit code 0]", "go on"]
