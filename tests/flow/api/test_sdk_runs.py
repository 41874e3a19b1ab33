"""The SDK's runs, against the real api and a worker that the test drives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel

from runtools import AsyncRunTools, RunTools
from runtools.errors import DeadlineExceeded, NotFound, RunFailed
from runtools.sdk.shapes.runs import RunConfig, RunMessage
from runtools.testing.fake_worker import answered, asked, called, done, said, used
from runtools.testing.run_stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Verdict(BaseModel):
    """What a run is to end with."""

    good: bool


@pytest_asyncio.fixture(loop_scope="module")
async def rt(stage: Stage) -> AsyncIterator[AsyncRunTools]:
    """The SDK with the first key."""
    async with AsyncRunTools(stage.world.key, stage.world.url) as made:
        yield made


class TestRun:
    async def test_it_answers_with_the_result(self, stage: Stage, rt: AsyncRunTools) -> None:
        asking = asyncio.create_task(
            rt.agents.run("coder", "Judge it.", output_schema=Verdict, metadata={"for": "me"})
        )
        run, given = await stage.next()
        assert given.output_schema is not None
        assert given.output_schema["properties"]["good"]["type"] == "boolean"
        await stage.worker.append(
            run, said("Good."), used(), done("Good.", structured={"good": True})
        )
        result = await asking
        assert (result.output, result.status) == ("Good.", "completed")
        assert Verdict.model_validate(result.structured).good
        assert result.metadata == {"for": "me"}

    async def test_a_failure_is_raised_and_says_why(self, stage: Stage, rt: AsyncRunTools) -> None:
        asking = asyncio.create_task(rt.agents.run("coder", "Fail."))
        run, _ = await stage.next()
        why = {"code": "unavailable", "message": "the model is away", "hint": "wait"}
        await stage.worker.append(run, done(status="failed", error=why))
        with pytest.raises(RunFailed, match="the model is away") as failed:
            await asking
        assert failed.value.details == {"runId": run.run_id, "code": "unavailable"}

    async def test_time_that_is_up_leaves_it_alone(self, stage: Stage, rt: AsyncRunTools) -> None:
        with pytest.raises(DeadlineExceeded, match="goes on"):
            await rt.agents.run("coder", "Slow.", timeout=0.2)
        run, _ = await stage.next()
        await stage.worker.finish(run)

    async def test_config_and_conversation_travel(self, stage: Stage, rt: AsyncRunTools) -> None:
        messages = [
            RunMessage(role="user", content="A?"),
            RunMessage(role="assistant", content="B."),
            RunMessage(role="user", content="C?"),
        ]
        begun = await rt.agents.start("coder", messages, config=RunConfig(max_iterations=3))
        run, given = await stage.take(begun.id)
        assert given.limits["max_iterations"] == 3
        assert [one.data["text"] for one in given.log[1:]] == ["A?", "B.", "C?"]
        await stage.worker.finish(run)
        assert (await begun.wait()).status == "completed"
        with pytest.raises(NotFound):
            await rt.agents.start("nobody", "x")


class TestHandle:
    async def test_steered_approved_and_resumed(self, stage: Stage, rt: AsyncRunTools) -> None:
        begun = await rt.agents.start("coder", "Do it.", config={"max_iterations": 1})
        run, _ = await stage.take(begun.id)
        await begun.steer("Be quick.", mode="interrupt")
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        assert (await begun.refresh()).status == "waiting"
        await begun.approve("c1", arguments={"command": "ls"})
        run, given = await stage.take(begun.id)
        assert [one.type for one in given.log][-1] == "approval-resolved"
        await stage.worker.append(run, answered("bash"), done(status="limit_reached", limit="x"))
        ended = await begun.wait()
        assert ended.status == "limit_reached"
        more = await begun.resume("Go on.", config={"max_iterations": 5})
        assert more.view.continues == begun.id
        run, _ = await stage.take(more.id)
        await more.cancel()
        assert more.view.cancel_requested
        await stage.worker.append(run, done(status="cancelled"))
        assert (await more.wait()).status == "cancelled"
        found = [one.id async for one in rt.runs.list(thread_id=begun.thread_id)]
        assert found == [more.id, begun.id]
        assert (await rt.runs.get(begun.id)).status == "limit_reached"


class TestEvents:
    async def test_they_come_as_they_happen(self, stage: Stage, rt: AsyncRunTools) -> None:
        seen: list[Any] = []

        async def read() -> None:
            async for event in rt.agents.stream("coder", "Tell me."):
                seen.append(event)

        reading = asyncio.create_task(read())
        run, _ = await stage.next()
        while len(seen) < 2:
            await asyncio.sleep(0.01)
        await stage.worker.delta(run, "text-delta", text="Hel", turn=1, attempt=1)
        await stage.worker.finish(run, "Hello.")
        await asyncio.wait_for(reading, 20)
        kinds = ["run-started", "message", "text-delta", "message", "usage", "done"]
        assert [event.type for event in seen] == kinds
        assert seen[2].seq is None

    async def test_a_broken_connection_loses_and_repeats_nothing(
        self, stage: Stage, rt: AsyncRunTools
    ) -> None:
        begun = await rt.agents.start("coder", "Long.")
        run, _ = await stage.take(begun.id)
        seen: list[int] = []
        broken = 0
        follow = stage.world.platform.readers.follow

        async def breaking(*given: Any) -> Any:
            nonlocal broken
            count = 0
            async for piece in follow(*given):
                yield piece
                count += 1
                if count == 2 and broken < 5:
                    broken += 1
                    raise ConnectionResetError

        stage.world.platform.readers.follow = breaking  # type: ignore[method-assign,assignment]
        try:

            async def read() -> None:
                async for event in begun.events():
                    assert event.seq is not None
                    seen.append(event.seq)

            reading = asyncio.create_task(read())
            for turn in range(1, 21):
                await stage.worker.append(run, said(f"{turn}", turn))
                await asyncio.sleep(0.02)
            await stage.worker.finish(run)
            await asyncio.wait_for(reading, 30)
        finally:
            stage.world.platform.readers.follow = follow  # type: ignore[method-assign]
        assert broken > 1
        assert seen == list(range(1, 2 + 20 + 3 + 1))

    async def test_after_a_number(self, stage: Stage, rt: AsyncRunTools) -> None:
        begun = await rt.agents.start("coder", "x")
        run, _ = await stage.take(begun.id)
        await stage.worker.finish(run)
        assert [event.seq async for event in begun.events(3)] == [4, 5]


class TestThreads:
    async def test_all_that_can_be_done(self, stage: Stage, rt: AsyncRunTools) -> None:
        begun = await rt.agents.start("coder", "What is it?")
        run, _ = await stage.take(begun.id)
        await stage.worker.finish(run, "A cat.")
        thread = await rt.threads.get(begun.thread_id)
        assert (thread.title, thread.runs) == ("What is it?", 1)
        assert (await rt.threads.rename(thread.id, "Cats")).title == "Cats"
        assert [one.text for one in await rt.threads.messages(thread.id)] == [
            "What is it?",
            "A cat.",
        ]
        whole = await rt.threads.export(thread.id)
        assert [event.type for event in whole.events][-1] == "done"
        assert thread.id in [one.id async for one in rt.threads.list(agent="coder")]
        await rt.threads.delete(thread.id)
        with pytest.raises(NotFound):
            await rt.threads.get(thread.id)


class TestSync:
    async def test_the_sync_client_can_do_it_too(self, stage: Stage) -> None:
        def work() -> tuple[str | None, list[str]]:
            with RunTools(stage.world.key, stage.world.url) as rt:
                first = rt.agents.run("coder", "One.")
                second = rt.agents.stream("coder", "Two.", thread_id=first.thread_id)
                return first.output, [event.type for event in second]

        working = asyncio.create_task(asyncio.to_thread(work))
        for word in ("Eins", "Zwei"):
            run, _ = await stage.next()
            await stage.worker.finish(run, word)
        output, kinds = await working
        assert output == "Eins"
        assert kinds == ["run-started", "message", "message", "usage", "done"]
