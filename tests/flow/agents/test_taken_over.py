"""What a lease finds that an earlier one has left: a call that waited for a person was never made."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.flow.agents.conftest import Stage

from runtools.platform.agents import socket as sockets
from runtools.platform.core.ports.worker import Logged, Offer
from runtools.testing import small_server
from runtools.testing.fake_runs import FakeRun
from runtools.testing.scripted_model import Call, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def small(stage: Stage) -> dict[str, Any]:
    """A server in the sandbox."""
    text = Path(small_server.__file__).read_text()
    await stage.sandbox.files.write("/workspace/small_server.py", text)
    return {"name": "it", "command": ["python3", "-u", "/workspace/small_server.py"]}


async def boxes(stage: Stage) -> dict[str, Any]:
    """A server at an address."""
    stage.runs.secrets["KEY"] = stage.key
    return {"name": "it", "url": f"{stage.url}/mcp", "secret": "KEY"}


async def waiting(stage: Stage, server: Any) -> tuple[FakeRun, Call]:
    """A run that waits for a person's word on a call that nobody may make twice."""
    given = await server(stage)
    call = Call("it__count", {})
    if "url" in given:
        call = Call("it__bash", {"sandbox": stage.sandbox.id, "command": "echo 1"})
    agent = {"mcp_servers": [given], "permissions": {"it__*": "ask"}}
    run = stage.make(agent=agent)
    stage.worker(Script([call], ["done"]))
    await stage.runs.until(lambda: run.status == "waiting")
    return run, call


class TestApproved:
    @pytest.mark.parametrize("server", [small, boxes])
    async def test_what_waited_for_a_person_is_made(self, stage: Stage, server: Any) -> None:
        run, _ = await waiting(stage, server)
        await stage.runs.decide(run, "call-0-0", "allow")
        assert (await stage.runs.ended(run))["status"] == "completed"
        [result] = run.of("tool-result")
        assert not result["failed"], result["output"]
        assert result["output"].startswith("1")
        assert run.lease == 2

    async def test_also_where_the_worker_went_before_the_word(self, stage: Stage) -> None:
        call = [Call("bash", {"command": "echo begun; sleep 60"}), Call("it__count", {})]
        agent = {"mcp_servers": [await small(stage)], "permissions": {"it__*": "ask"}}
        run = stage.make(agent=agent)
        worker, link = stage.worker(Script(call, ["done"]))
        await stage.runs.until(lambda: "approval-requested" in run.types())
        link.cut()
        await worker.abandon()
        await stage.runs.decide(run, "call-0-1", "allow")
        stage.worker(Script(call, ["done"]))
        await stage.runs.until(lambda: run.of("tool-result"))
        [result] = run.of("tool-result")
        assert (result["name"], result["output"]) == ("it__count", "1")
        await stage.runs.cancel(run)
        await stage.runs.ended(run)

    async def test_what_may_have_been_made_is_not_made_again(self, stage: Stage) -> None:
        call = Call("it__hang", {})
        run = stage.make(agent={"mcp_servers": [await small(stage)]})
        worker, link = stage.worker(Script([call], ["done"]))
        await stage.runs.until(lambda: "tool-call" in run.types())
        link.cut()
        await worker.abandon()
        stage.worker(Script([call], ["done"]))
        await stage.runs.ended(run)
        [result] = run.of("tool-result")
        assert "nobody knows whether it was carried out" in result["output"]


class TestOfBefore:
    """The loop may change, and what it stands on, while a run waits for days.

    The log was written once, by a worker of November 2026, and is never written anew: it has to be read.
    """

    @pytest.mark.parametrize("decision", ["allow", "deny"])
    async def test_a_log_of_an_earlier_worker_is_gone_on_with(
        self, stage: Stage, decision: str
    ) -> None:
        file = Path(__file__).with_name("logs") / "waiting.json"
        await stage.sandbox.files.write("/workspace/old", "x")
        run = stage.make(agent={"permissions": {"delete_file": "ask"}})
        kept = json.loads(file.read_text())
        run.log = [Logged.model_validate({**one, "runId": run.id}) for one in kept]
        run.status = "waiting"
        script = Script(["never"], ["never"], ["done"])
        stage.worker(script)
        await stage.runs.decide(run, "call-1-1", decision)
        done = await stage.runs.ended(run)
        assert (done["status"], done["output"]) == ("completed", "done")
        assert done["usage"]["requests"] == 3
        assert done["iterations"] == 3
        results = {one["callId"]: one for one in run.of("tool-result")}
        assert len(run.of("tool-result")) == len(run.of("tool-call")) == len(results) == 4
        assert results["call-1-1"]["failed"] is (decision == "deny")
        [asked] = script.asked
        for said in ("Remove the old file.", "want the old file gone", "here\\n[exit", "beside\\n"):
            assert said in str(asked)


class TestReplaced:
    async def test_a_sandbox_in_place_of_another_is_told_of_once(self, stage: Stage) -> None:
        calls = [Call("bash", {"command": "echo one"})], [Call("bash", {"command": "echo two"})]
        for replaced in (False, True):
            run = stage.make()
            run.replaced = replaced
            worker, link = stage.worker(Script(*calls, ["done"]))
            await stage.runs.ended(run)
            first, second = (one["output"] for one in run.of("tool-result"))
            assert first.startswith("[the sandbox of this thread is gone") is replaced
            assert second.startswith("two")
            link.cut()
            await worker.abandon()


class TestOffers:
    async def test_the_same_one_again_changes_nothing(self, stage: Stage) -> None:
        run = stage.make()
        other = stage.make()
        call = Call("bash", {"command": "echo begun; sleep 0.2"})
        worker, _ = stage.worker(Script([call], ["done"]), slots=1)
        await stage.runs.until(lambda: run.deltas)
        for one in (run, other, run, other):
            worker.told(Offer(run_id=one.id, lease=1))
        await stage.runs.ended(run)
        await stage.runs.ended(other)
        assert (run.lease, other.lease) == (1, 1)
        assert [one["failed"] for one in run.of("tool-result")] == [False]


class Slow:
    """A connection that takes nothing until it is let."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.may = asyncio.Event()

    async def send(self, text: str) -> None:
        await self.may.wait()
        self.sent.append(text)

    def __aiter__(self) -> Slow:
        return self

    async def __anext__(self) -> str:
        await asyncio.Event().wait()
        raise StopAsyncIteration

    async def close(self) -> None:
        """Nothing is to be closed."""


class TestLivePieces:
    async def test_they_are_bounded_while_nothing_is_taken(self) -> None:
        slow = Slow()
        link = sockets.SocketLink(slow, lambda _: None)  # type: ignore[arg-type]
        try:
            for number in range(2000):
                data = {"text": f"{number:<1000}", "callId": "c", "attempt": 1}
                link.delta("run_a", 1, "tool-output-delta", data)
            asking = asyncio.create_task(link.read("run_a", 1, 0))
            slow.may.set()
            async with asyncio.timeout(30):
                while not any('"read"' in one for one in slow.sent):
                    await asyncio.sleep(0.01)
            asking.cancel()
        finally:
            await link.close()
        pieces = [one for one in slow.sent if '"delta"' in one]
        assert sum(map(len, pieces)) < 1.2 * sockets.LIVE_CHARACTERS
        assert max(map(len, pieces)) < sockets.LIVE_CHARACTERS // 8
        assert "1999" in pieces[-1]  # the newest are kept
        assert not link.lost.is_set() or slow.sent

    async def test_those_of_an_answer_are_joined_where_one_goes_on_with_another(self) -> None:
        slow = Slow()
        link = sockets.SocketLink(slow, lambda _: None)  # type: ignore[arg-type]
        said = [("first", 1, 0), ("I ", 1, 5), ("am", 1, 7), ("lost", 1, 20), ("anew", 2, 0)]
        try:
            link.delta("run_a", 1, "thinking", {"text": "hm", "turn": 1, "attempt": 1, "offset": 0})
            for text, attempt, offset in said:
                data = {"text": text, "turn": 1, "attempt": attempt, "offset": offset}
                link.delta("run_a", 1, "text-delta", data)
            slow.may.set()
            async with asyncio.timeout(30):
                while not any("anew" in one for one in slow.sent):
                    await asyncio.sleep(0.01)
        finally:
            await link.close()
        pieces = [one["data"] for one in map(json.loads, slow.sent) if one.get("call") == "delta"]
        assert [(one["text"], one["offset"]) for one in pieces] == [
            ("hm", 0), ("firstI am", 0), ("lost", 20), ("anew", 0)
        ]  # fmt: skip

    async def test_what_no_frame_holds_is_refused_and_costs_no_connection(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from runtools.errors import TooLarge
        from runtools.platform.core.ports.worker import NewEvent

        monkeypatch.setattr(sockets, "MAX_FRAME_BYTES", 1000)
        link = sockets.SocketLink(Slow(), lambda _: None)  # type: ignore[arg-type]
        try:
            event = NewEvent(key="k", type="message", data={"text": "x" * 1000})
            with pytest.raises(TooLarge):
                await link.append("run_a", 1, [event])
            assert not link.lost.is_set()
        finally:
            await link.close()

    async def test_a_run_that_the_api_cannot_serve_is_left_and_no_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from runtools.errors import Unavailable
        from runtools.platform.agents.link import LinkLost

        async def refuse(*_: Any) -> Any:
            raise Unavailable("not now")

        monkeypatch.setattr(sockets, "_PAUSES", (0.0,))
        link = sockets.SocketLink(Slow(), lambda _: None)  # type: ignore[arg-type]
        monkeypatch.setattr(link, "call", refuse)
        try:
            with pytest.raises(LinkLost):
                await link.take("run_a", 1)
            with pytest.raises(Unavailable):  # who gives back tries on
                await link.release("run_a", 1)
            assert not link.lost.is_set()
        finally:
            await link.close()
