"""A run read in the languages of front ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from runtools.platform.api.edge import MAX_CHAT_BYTES
from runtools.platform.api.frontends import service
from runtools.sdk.shapes.runs import MAX_MESSAGE_CHARACTERS
from runtools.testing.fake_worker import Held, answered, asked, called, done, fronts, said
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


@pytest.mark.parametrize("kind", ["ai-sdk", "ag-ui"])
async def test_one_that_waits_ends_streams_that_begin_behind_its_question(
    stage: Stage, kind: str
) -> None:
    run, _ = await stage.taken("Hello?")
    both = [one for n in "12" for one in (called("bash", f"c{n}"), asked("bash", f"c{n}"))]
    await stage.worker.append(run, *both, wait=True)
    first = {"callId": "c1", "decision": "allow"}
    last = (await stage.org.ask("POST", f"/v1/runs/{run.run_id}/approve", json=first))["lastSeq"]
    again, _ = await stage.take(run.run_id)
    await stage.worker.append(again, said("One of them.", 2), wait=True)
    told, _, _ = await lines(stage, f"/v1/runs/{run.run_id}/events?format={kind}&after={last}")
    if kind == "ai-sdk":
        assert told[-1]["finishReason"] == "tool-calls"
    else:
        [interrupt] = told[-1]["outcome"]["interrupts"]
        assert interrupt["toolCallId"] == f"{run.run_id}:c2"
    await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")


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


def spoken(role: str, *parts: Any) -> dict[str, Any]:
    """A message as `useChat` keeps it."""
    said = [{"type": "text", "text": one} if isinstance(one, str) else one for one in parts]
    return {"id": f"m-{len(parts)}-{role}", "role": role, "parts": said}


async def results_after(stage: Stage, run: Held, seq: int) -> list[Any]:
    """What came of calls, once something has."""
    async with asyncio.timeout(20):
        while True:
            found = (await stage.worker.read(run, seq)).events
            if results := [one.data["output"] for one in found if one.type == "tool-result"]:
                return results


async def posted(
    stage: Stage, path: str, body: Any, headers: dict[str, str] | None = None
) -> tuple[list[Any], dict[str, str]]:
    """What a front end is answered with, to its end."""
    asking = stage.org.http.stream("POST", path, json=body, headers=headers)
    async with asyncio.timeout(60), asking as stream:
        assert stream.status_code == 200, await stream.aread()
        data = [
            line.removeprefix("data: ")
            async for line in stream.aiter_lines()
            if line.startswith("data: ")
        ]
    return [json.loads(one) for one in data if one != "[DONE]"], dict(stream.headers)


async def refused(stage: Stage, path: str, body: Any) -> Any:
    """What is wrong with what a front end sends; a stream that begins is not waited for."""
    async with stage.org.http.stream("POST", path, json=body) as answer:
        assert answer.status_code == 400
        await answer.aread()
        return answer.json()["error"]


USE_CHAT = "/v1/run/ai-sdk?agent=coder"
AG_UI = "/v1/run/ag-ui?agent=coder"


async def begins(stage: Stage, path: str, body: Any) -> Held:
    """The run that a request begins; nobody reads on."""
    asking = stage.org.http.stream("POST", path, json=body)
    async with asyncio.timeout(20), asking:
        return (await stage.next())[0]


async def heard(stage: Stage, run: Held, path: str, body: Any) -> None:
    """What is said to a run under way is taken; nobody reads on."""
    asking = stage.org.http.stream("POST", path, json=body)
    async with asyncio.timeout(20), asking as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["x-run-id"] == run.run_id


GIF = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"

ALLOWED = {"status": "resolved", "payload": {"approved": True}}
PICTURE = {"type": "image", "source": {"type": "data", "value": GIF.partition(",")[2]}}


def use_chat(chat: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The body that it sends."""
    return {"id": chat, "messages": list(messages), "trigger": "submit-message", **more}


def ag_ui(chat: str, *messages: tuple[str, Any], **more: Any) -> dict[str, Any]:
    """The body that a client of AG-UI sends."""
    said = [
        {"id": str(n), "role": role, "content": text} for n, (role, text) in enumerate(messages)
    ]
    input_ = {"threadId": chat, "runId": "their-run", "messages": said, "tools": [], "context": []}
    return {**input_, "state": {}, "forwardedProps": {}, **more}


class TestUseChat:
    async def test_a_chat_is_a_thread(self, stage: Stage) -> None:
        system = spoken("system", "be kind")
        first = spoken("user", "What is ", "it?", {"type": "file", "mediaType": "x", "url": GIF})
        asking = asyncio.create_task(posted(stage, USE_CHAT, use_chat("c-1", system, first)))
        run, given = await stage.next()
        [message] = [one.data for one in given.log if one.type == "message"]
        assert message["text"] == "What is it?"
        assert message["images"][0]["mediaType"] == "image/gif"
        await stage.worker.finish(run, "A dot.")
        chunks, headers = await asking
        assert headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert chunks[0] == {"type": "start", "messageId": run.run_id}
        assert chunks[-1]["type"] == "finish"
        answer = spoken("assistant", "A dot.")
        again = use_chat("c-1", system, first, answer, spoken("user", "Sure?"))
        asking = asyncio.create_task(posted(stage, USE_CHAT, again))
        other, given = await stage.next()
        assert given.run.thread_id == headers["x-thread-id"]
        assert [one.data["text"] for one in given.log if one.type == "message"] == ["Sure?"]
        await stage.worker.finish(other, "Yes.")
        await asking

    async def test_one_that_was_led_elsewhere_comes_along(self, stage: Stage) -> None:
        before = [spoken("user", "a"), spoken("assistant", "b", {"type": "step-start"})]
        body = use_chat("c-2", *before, spoken("user", "c"))
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, given = await stage.next()
        said = [(one.data["role"], one.data["text"]) for one in given.log if one.type == "message"]
        assert said == [("user", "a"), ("assistant", "b"), ("user", "c")]
        await stage.worker.finish(run, "d")
        await asking

    @pytest.mark.parametrize(("allowed", "decision"), [(True, "allow"), (False, "deny")])
    async def test_an_approval_goes_on_with_its_run(
        self, stage: Stage, allowed: bool, decision: str
    ) -> None:
        body = use_chat(f"c-{decision}", spoken("user", "do"))
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, _ = await stage.next()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        chunks, _ = await asking
        [wanted] = [one for one in chunks if one["type"] == "tool-approval-request"]
        part = {
            "type": "dynamic-tool",
            "toolCallId": wanted["toolCallId"],
            "state": "approval-responded",
            "approval": {"id": wanted["approvalId"], "approved": allowed, "reason": "so"},
        }
        answered = {**spoken("assistant", part), "id": "their-message"}
        asking = asyncio.create_task(posted(stage, USE_CHAT, {**body, "messages": [answered]}))
        run, given = await stage.next()
        [resolved] = [one.data for one in given.log if one.type == "approval-resolved"]
        assert (resolved["decision"], resolved["reason"]) == (decision, "so")
        await stage.worker.finish(run, "done")
        chunks, _ = await asking
        assert chunks[0] == {"type": "start", "messageId": "their-message"}
        assert "tool-input-start" not in [one["type"] for one in chunks]  # it was told before
        assert chunks[-1]["type"] == "finish"

    async def test_a_word_in_place_of_an_answer(self, stage: Stage) -> None:
        """It breaks off what waits, instead of waiting behind it for ever."""
        asking = asyncio.create_task(posted(stage, USE_CHAT, use_chat("c-4", spoken("user", "do"))))
        run, _ = await stage.next()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        await asking
        body = use_chat(
            "c-4", spoken("user", "do"), spoken("assistant", "…"), spoken("user", "no!")
        )
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        again, given = await stage.next()
        assert again.run_id == run.run_id
        said = [one.data for one in given.log if one.type == "message"][-1]
        assert (said["text"], said["steering"]) == ("no!", "interrupt")
        await stage.worker.append(again, answered("bash", output="nobody allowed it", failed=True))
        await stage.worker.finish(again, "fine")
        chunks, _ = await asking
        assert chunks[0]["messageId"] != run.run_id  # a message of its own
        assert "tool-output-error" not in [one["type"] for one in chunks]  # it knows no such call
        assert [one["data"]["toolCallId"] for one in chunks if one["type"] == "data-tool-result"]
        assert chunks[-1]["type"] == "finish"

    @pytest.mark.parametrize(
        "messages",
        [
            [spoken("assistant", "a")],
            [spoken("user")],
            [spoken("user", "a", {"type": "file", "url": "https://example.org/a.png"})],
            [spoken("user", "a", {"type": "file", "url": "data:image/png;base64,PHN2Zy8+"})],
            [spoken("user", "a", {"type": "file", "url": "data:image/png;base64,%%%"})],
        ],
    )
    async def test_what_no_agent_can_be_given_is_refused(
        self, stage: Stage, messages: list[Any]
    ) -> None:
        answer = await stage.org.http.post(USE_CHAT, json=use_chat("c-5", *messages))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")

    async def test_an_answer_that_was_not_sent_before_a_word(self, stage: Stage) -> None:
        """A chat that sends nothing by itself sends it with what is said next."""
        body = use_chat("c-13", spoken("user", "do"))
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, _ = await stage.next()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        [wanted] = [one for one in (await asking)[0] if one["type"] == "tool-approval-request"]
        part = {
            "type": "dynamic-tool",
            "toolCallId": wanted["toolCallId"],
            "state": "approval-responded",
            "approval": {"id": wanted["approvalId"], "approved": True},
        }
        said_ = [*body["messages"], spoken("assistant", part), spoken("user", "and be quick")]
        asking = asyncio.create_task(posted(stage, USE_CHAT, use_chat("c-13", *said_)))
        again, given = await stage.take(run.run_id)
        assert [one.type for one in given.log[-2:]] == ["approval-resolved", "message"]
        assert given.log[-1].data["steering"] == "queue"
        await stage.worker.append(again, answered("bash"))
        await stage.worker.finish(again, "done")
        chunks, _ = await asking
        assert chunks[0]["messageId"] != run.run_id  # a message of its own
        assert chunks[-1]["type"] == "finish"
        # The message that has the answer is sent for ever; in a copy of the chat it is nobody's.
        for chat in ("c-13", "c-13-copy"):
            later = use_chat(chat, *said_, spoken("assistant", "done"), spoken("user", "thanks"))
            del later["messages"][-2]
            asking = asyncio.create_task(posted(stage, USE_CHAT, later))
            other, _ = await stage.next()
            assert other.run_id != run.run_id
            await stage.worker.finish(other)
            await asking

    async def test_a_word_that_was_said_before_may_be_said_again(self, stage: Stage) -> None:
        """Also where a front end sends the last message alone, or half of an answer that it has."""
        run = await begins(stage, USE_CHAT, use_chat("c-17", spoken("user", "go on")))
        await stage.worker.append(run, called("bash"))
        for before in ([], [spoken("user", "go on"), spoken("assistant", "I wo")]):
            body = use_chat("c-17", *before, spoken("user", "go on"))
            await heard(stage, run, USE_CHAT, body)
        await stage.worker.append(run, answered("bash"))
        await stage.worker.finish(run, "Done.")
        await one_word_each(stage, run.run_id, [*["go on"] * 3, "Done."])

    async def test_nor_does_an_answer_that_others_asked_for(self, stage: Stage) -> None:
        """It stands in the last message of a chat that was led elsewhere, and is sent with every word."""
        asking = asyncio.create_task(
            posted(stage, USE_CHAT, use_chat("c-16", spoken("user", "do")))
        )
        first, _ = await stage.next()
        await stage.worker.append(first, called("bash"), asked("bash"), wait=True)
        [wanted] = [one for one in (await asking)[0] if one["type"] == "tool-approval-request"]
        names = ["aitxt-1", "run_x:c1", "x:" + "y" * 200, f"{first.run_id}:c9"]
        parts = [
            {
                "type": "dynamic-tool",
                "toolCallId": f"c{n}",
                "state": "approval-responded",
                "approval": {"id": name, "approved": True},
            }
            for n, name in enumerate([*names, wanted["approvalId"]])
        ]
        answer = spoken("assistant", *parts)
        body = use_chat("c-16", spoken("user", "do"), answer, spoken("user", "and be quick"))
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        again, given = await stage.take(first.run_id)
        resolved, word = given.log[-2:]
        assert (resolved.type, resolved.data["callId"]) == ("approval-resolved", "c1")
        assert word.data["text"] == "and be quick"
        await stage.worker.append(again, answered("bash"))
        await stage.worker.finish(again)
        await asking
        later = use_chat("c-16", answer, spoken("user", "thanks"))
        for body in (later, {**later, "id": "c-16-copy"}):
            asking = asyncio.create_task(posted(stage, USE_CHAT, body))
            other, _ = await stage.next()
            assert other.run_id != first.run_id
            await stage.worker.finish(other)
            await asking

    async def test_what_no_agent_can_take_does_not_end_a_chat(self, stage: Stage) -> None:
        """A front end keeps the message that was refused, and sends it with each that follows."""
        pdf = spoken("user", "a", {"type": "file", "url": "data:application/pdf;base64,JVBERi0="})
        broken = spoken("user", {"type": "file", "url": "data:image/gif;base64,R0lGODlh"})
        long = spoken("assistant", *["y" * 600_000] * 2)
        answer = await stage.org.http.post(USE_CHAT, json=use_chat("c-14", pdf))
        assert answer.status_code == 400
        body = use_chat("c-14", broken, long, pdf, spoken("user", "then without"))
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, given = await stage.next()
        texts = [one.data["text"] for one in given.log if one.type == "message"]
        assert "begins like image/gif and is not whole" in texts[0]
        assert "left out here" in texts[1]
        assert texts[2].startswith("a\n[a file that cannot be shown: it is no PNG")
        assert texts[3] == "then without"
        await stage.worker.finish(run, "Well.")
        await asking
        again = [*body["messages"], spoken("assistant", "Well."), spoken("user", "Sure?")]
        asking = asyncio.create_task(posted(stage, USE_CHAT, use_chat("c-14", *again)))
        run, given = await stage.next()
        assert [one.data["text"] for one in given.log if one.type == "message"] == ["Sure?"]
        await stage.worker.finish(run, "Yes.")
        await asking

    async def test_what_was_answered_is_not_answered_anew(self, stage: Stage) -> None:
        body = use_chat("c-10", spoken("user", "do"))
        again = {**body, "trigger": "regenerate-message"}
        asking = asyncio.create_task(posted(stage, USE_CHAT, again))  # nothing has come of it yet
        run, _ = await stage.next()
        answer = await stage.org.http.post(USE_CHAT, json=again)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        error = {"code": "model_unauthorized", "message": "no"}
        await stage.worker.append(run, done(status="failed", error=error))
        await asking
        asking = asyncio.create_task(posted(stage, USE_CHAT, again))  # what failed is
        run, given = await stage.next()
        assert [one.data["text"] for one in given.log if one.type == "message"] == ["do"]
        await stage.worker.finish(run, "done")
        await asking
        edited = {**body, "messageId": body["messages"][0]["id"]}
        for wanted in (again, edited):
            answer = await stage.org.http.post(USE_CHAT, json=wanted)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")

    async def test_a_message_under_way_is_found_again(self, stage: Stage) -> None:
        path = "/v1/run/ai-sdk/c-11/stream?agent=coder"
        assert (await stage.org.http.get(path)).status_code == 204
        body = use_chat("c-11", spoken("user", "do"))
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, _ = await stage.next()
        await stage.worker.append(run, said("I look."), called("bash"), asked("bash"), wait=True)
        first, _ = await asking
        again, _, headers = await lines(stage, path)
        assert headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert again[0] == first[0]
        assert again[-3:] == first[-3:]  # it waits for the same person still
        asking = asyncio.create_task(
            posted(stage, USE_CHAT, use_chat("c-11", spoken("user", "no!")))
        )
        other, _ = await stage.next()
        await stage.worker.append(other, said("Well.", 2))
        async with stage.org.http.stream("GET", path) as stream:
            assert stream.status_code == 200
            await stage.worker.finish(other, "Well.")
            told = (await stream.aread()).decode()
        second, _ = await asking
        assert second[0] != first[0]
        assert json.dumps(second[0]) in told  # the message that the word began
        assert (await stage.org.http.get(path)).status_code == 204

    async def test_a_chat_may_be_as_large_as_its_pictures_make_it(self, stage: Stage) -> None:
        """A front end sends all of it each time."""
        first = spoken("user", "Hello?")
        asking = asyncio.create_task(posted(stage, USE_CHAT, use_chat("c-12", first)))
        run, _ = await stage.next()
        await stage.worker.finish(run, "Hello!")
        await asking
        long = [first, *[spoken("assistant", "y" * 999_999)] * 12]
        body = use_chat("c-12", *long, spoken("user", "Well?"))
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, given = await stage.next()
        assert [one.data["text"] for one in given.log if one.type == "message"] == ["Well?"]
        await stage.worker.finish(run, "Well.")
        await asking
        body = {**use_chat("c-12", spoken("user", "a")), "more": "x" * MAX_CHAT_BYTES}
        answer = await stage.org.http.post(USE_CHAT, json=body)
        assert answer.status_code == 413
        assert "the last message alone" in answer.json()["error"]["hint"]


class TestAgUi:
    async def test_its_threads_are_threads(self, stage: Stage) -> None:
        body = ag_ui("t-1", ("system", "be kind"), ("user", [{"type": "text", "text": "Hello?"}]))
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, _ = await stage.next()
        await stage.worker.finish(run, "Hello!")
        events, headers = await asking
        assert events[0] == {"type": "RUN_STARTED", "threadId": "t-1", "runId": "their-run"}
        assert events[-1]["type"] == "RUN_FINISHED"
        again = ag_ui("t-1", ("user", "Hello?"), ("assistant", "Hello!"), ("user", "Well?"))
        asking = asyncio.create_task(posted(stage, AG_UI, again))
        run, given = await stage.next()
        assert given.run.thread_id == headers["x-thread-id"]
        assert [one.data["text"] for one in given.log if one.type == "message"] == ["Well?"]
        await stage.worker.finish(run, "Well.")
        await asking

    async def test_interrupts_are_answered(self, stage: Stage) -> None:
        asking = asyncio.create_task(posted(stage, AG_UI, ag_ui("t-2", ("user", "do"))))
        run, _ = await stage.next()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        [interrupt] = (await asking)[0][-1]["outcome"]["interrupts"]
        assert interrupt["responseSchema"]["required"] == ["approved"]
        wrong = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"yes": 1}}
        answer = await stage.org.http.post(AG_UI, json=ag_ui("t-2", resume=[wrong]))
        assert answer.status_code == 400
        right = {**wrong, "payload": {"approved": True}}
        asking = asyncio.create_task(posted(stage, AG_UI, ag_ui("t-2", resume=[right])))
        run, given = await stage.next()
        assert [one.data["decision"] for one in given.log if one.type == "approval-resolved"] == [
            "allow"
        ]
        await stage.worker.finish(run, "done")
        assert (await asking)[0][-1]["type"] == "RUN_FINISHED"

    @pytest.mark.parametrize("answer", [{"status": "cancelled"}, ALLOWED])
    async def test_a_word_beside_an_answer(self, stage: Stage, answer: dict[str, Any]) -> None:
        """Its clients send no word without an answer to all that waits: `cancelled` is none."""
        chat = f"t-3-{answer['status']}"
        body = ag_ui(chat, ("user", "do"))
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, _ = await stage.next()
        await stage.worker.append(run, said("I ask."), called("bash"), asked("bash"), wait=True)
        [interrupt] = (await asking)[0][-1]["outcome"]["interrupts"]
        resume = [{"interruptId": interrupt["id"], **answer}]
        words = ("user", "do"), ("assistant", "I ask."), ("user", "only the first")
        asking = asyncio.create_task(posted(stage, AG_UI, ag_ui(chat, *words, resume=resume)))
        again, given = await stage.take(run.run_id)
        resolved, word = given.log[-2:]
        decision = "deny" if answer["status"] == "cancelled" else "allow"
        assert (resolved.type, resolved.data["decision"]) == ("approval-resolved", decision)
        assert (word.data["text"], word.data["steering"]) == ("only the first", "queue")
        await stage.worker.append(again, answered("bash"))
        await stage.worker.finish(again, "As you like.")
        events, headers = await asking
        assert headers["x-run-id"] == run.run_id
        assert {"type": "CUSTOM", "name": "steering", "value": {"text": "only the first"}} in events

    async def test_a_word_that_was_heard_before_a_question_is_not_said_again(
        self, stage: Stage
    ) -> None:
        asking = asyncio.create_task(posted(stage, AG_UI, ag_ui("t-4", ("user", "do"))))
        run, _ = await stage.next()
        news = await stage.worker.append(run, said("I work."), called("bash"))
        words = ("user", "do"), ("assistant", "I work."), ("user", "quick!")
        saying = asyncio.create_task(posted(stage, AG_UI, ag_ui("t-4", *words)))
        async with asyncio.timeout(20):
            while not (await stage.worker.read(run, news.events[-1].seq or 0)).events:
                await asyncio.sleep(0.01)
        await stage.worker.append(run, asked("bash"), wait=True)
        [interrupt] = (await saying)[0][-1]["outcome"]["interrupts"]
        await asking
        resume = [{"interruptId": interrupt["id"], **ALLOWED}]
        more = ag_ui("t-4", *words, ("user", "please"), resume=resume)
        asking = asyncio.create_task(posted(stage, AG_UI, more))
        again, given = await stage.take(run.run_id)
        texts = [one.data["text"] for one in given.log if one.type == "message"]
        assert texts == ["do", "I work.", "quick!", "please"]
        await stage.worker.append(again, answered("bash"))
        await stage.worker.finish(again)
        await asking

    async def test_words_to_a_run_that_works_are_heard_once_each(self, stage: Stage) -> None:
        """Each request has those before that nothing was answered to; one may be the same as another."""
        begun = ("user", "go on"), ("assistant", "I work.")
        words = [("user", "go on"), ("user", "quick!"), ("user", "quick!")]
        run = await begins(stage, AG_UI, ag_ui("t-8", begun[0]))
        await stage.worker.append(run, said("I work."), called("bash"))
        for n in range(1, 4):
            await heard(stage, run, AG_UI, ag_ui("t-8", *begun, *words[:n]))
        await stage.worker.append(run, answered("bash"))
        await stage.worker.finish(run, "Done.")
        told = ["go on", "I work.", "go on", "quick!", "quick!", "Done."]
        await one_word_each(stage, run.run_id, told)

    async def test_a_word_is_said_again_where_it_is_what_the_request_is_for(
        self, stage: Stage
    ) -> None:
        """Also behind results of before, after a run that failed, and to who has not kept the chat."""
        told = {"id": "t", "role": "tool", "toolCallId": "run_1:c1", "content": "Bern"}
        first = await begins(stage, AG_UI, ag_ui("t-12", ("user", "go on")))
        await stage.worker.append(first, done("", "failed"))
        whole = ag_ui("t-12", *[("user", "go on")] * 3)
        run = await begins(stage, AG_UI, {**whole, "messages": whole["messages"][:2]})
        await stage.worker.append(run, called("bash"))
        for messages in ([told, *whole["messages"]], [told, whole["messages"][-1]]):
            await heard(stage, run, AG_UI, {**whole, "messages": messages})
        await stage.worker.append(run, answered("bash"))
        await stage.worker.finish(run, "Done.")
        log = [
            one["data"]["text"]
            for one in await stage.events(run.run_id)
            if one["type"] == "message"
        ]
        assert log == [*["go on"] * 3, "Done."]

    async def test_a_word_in_place_of_an_answer_is_heard_whatever_was_said_before(
        self, stage: Stage
    ) -> None:
        asking = asyncio.create_task(posted(stage, AG_UI, ag_ui("t-13", ("user", "stop"))))
        run, _ = await stage.next()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        [interrupt] = (await asking)[0][-1]["outcome"]["interrupts"]
        no = [{"interruptId": interrupt["id"], "status": "cancelled"}]
        body = {**ag_ui("t-13", ("user", "stop")), "resume": no}  # it has kept its last word alone
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        again, given = await stage.take(run.run_id)
        assert [one.data["text"] for one in given.log if one.type == "message"] == ["stop", "stop"]
        await stage.worker.finish(again)
        await asking

    async def test_a_word_is_not_said_again_with_a_result(self, stage: Stage) -> None:
        """Clients put a result behind its call, or behind all that was said."""
        run = await begins(stage, AG_UI, ag_ui("t-10", ("user", "do"), **BROUGHT))
        await stage.worker.append(run, said("I ask."), called("bash"), fronts("where"))
        words = ag_ui("t-10", ("user", "do"), ("assistant", "I ask."), ("user", "quick!"))
        await heard(stage, run, AG_UI, words)
        told = {"id": "t", "role": "tool", "toolCallId": f"{run.run_id}:f1", "content": "Bern"}
        do, ask, quick = words["messages"]
        for messages in ([do, ask, told, quick], [do, ask, quick, told]):
            await heard(stage, run, AG_UI, {**words, "messages": messages})
        await stage.worker.append(run, answered("bash"))
        await stage.worker.finish(run, "Done.")
        await one_word_each(stage, run.run_id, ["do", "I ask.", "quick!", "Done."])

    @pytest.mark.parametrize("before", [(), ("user", "assistant"), ("assistant",)])
    @pytest.mark.parametrize("is_over", [False, True])
    async def test_a_decision_does_not_repeat_what_began_the_run(
        self, stage: Stage, before: tuple[str, ...], is_over: bool
    ) -> None:
        """Of an answer that is a call alone a client that keeps texts has nothing."""
        chat = f"t-11-{'-'.join(before)}-{is_over}"
        earlier = [(role, "delete it" if role == "user" else "Welcome!") for role in before]
        if "user" in before:
            first = await begins(stage, AG_UI, ag_ui(chat, earlier[0]))
            await stage.worker.finish(first, "Welcome!")
        body = ag_ui(chat, *earlier, ("user", "delete it"))
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, given = await stage.next()
        begun = [one.data["text"] for one in given.log if one.type == "message"]
        await stage.worker.append(run, said(""), called("bash"), asked("bash"), wait=True)
        [interrupt] = (await asking)[0][-1]["outcome"]["interrupts"]
        resume = [{"interruptId": interrupt["id"], **ALLOWED}]
        if is_over:  # its answer was lost, and it is asked once more
            yes = {"callId": "c1", "decision": "allow"}
            await stage.org.ask("POST", f"/v1/runs/{run.run_id}/approve", json=yes)
        else:
            asking = asyncio.create_task(posted(stage, AG_UI, {**body, "resume": resume}))
        again, given = await stage.take(run.run_id)
        assert [one.data["text"] for one in given.log if one.type == "message"] == [*begun, ""]
        await stage.worker.append(again, answered("bash"))
        await stage.worker.finish(again)
        if is_over:
            _, headers = await posted(stage, AG_UI, {**body, "resume": resume})
            assert headers["x-run-id"] == run.run_id
        await asking

    async def test_a_word_to_a_run_that_has_ended_meanwhile_begins_another(
        self, stage: Stage
    ) -> None:
        """Its client goes on naming what it was asked, until a run of the chat has ended for it."""
        asking = asyncio.create_task(posted(stage, AG_UI, ag_ui("t-5", ("user", "do"))))
        run, _ = await stage.next()
        await stage.worker.append(run, said("I ask."), called("bash"), asked("bash"), wait=True)
        [interrupt] = (await asking)[0][-1]["outcome"]["interrupts"]
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        words = ("user", "do"), ("assistant", "I ask."), ("user", "do another thing")
        named = {"interruptId": interrupt["id"]}
        late = ag_ui("t-5", *words, resume=[{**named, **ALLOWED}])
        answer = await stage.org.http.post(AG_UI, json=late)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "run_ended")
        gone = ag_ui("t-5", *words[:2], resume=[{**named, "status": "cancelled"}])
        assert (await posted(stage, AG_UI, gone))[0][-1]["outcome"] == {"type": "cancelled"}
        body = ag_ui("t-5", *words, resume=[{**named, "status": "cancelled"}])
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        other, given = await stage.next()
        assert other.run_id != run.run_id
        assert [one.data["text"] for one in given.log if one.type == "message"] == [words[2][1]]
        await stage.worker.finish(other)
        await asking

    @pytest.mark.parametrize("path", [AG_UI.replace("coder", "shared"), AG_UI])
    async def test_what_another_chat_was_asked_is_not_decided(
        self, stage: Stage, path: str
    ) -> None:
        """Whoever may use a chat may use no other by that: nor may he one of another agent."""
        asking = asyncio.create_task(posted(stage, AG_UI, ag_ui("t-6", ("user", "do"))))
        run, _ = await stage.next()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        [interrupt] = (await asking)[0][-1]["outcome"]["interrupts"]
        resume = [{"interruptId": interrupt["id"], **ALLOWED}]
        chat = "t-6" if path != AG_UI else "t-7"
        body = ag_ui(chat, resume=resume, context=[{"description": "a", "value": "b"}])
        answer = await stage.org.http.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        nobody = await stage.org.http.post(path.rpartition("=")[0] + "=nobody", json=body)
        assert nobody.status_code == 404
        assert (await stage.get(run.run_id))["status"] == "waiting"
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")


WHERE = {"description": "Where the user is.", "parameters": {"type": "object", "properties": {}}}
BROUGHT = {
    "tools": [{"name": "where", **WHERE}, {"name": "paint", "description": "Paints."}],
    "context": [{"description": "the page", "value": "/orders"}],
    "state": {"dark": True},
}


def paints(parameters: Any) -> dict[str, Any]:
    """A tool with these parameters, brought along by a client of AG-UI."""
    return {"tools": [{"name": "paint", "description": "Paints.", "parameters": parameters}]}


class TestBrought:
    """What a front end brings along, and calls that it carries out itself."""

    async def test_it_is_given_to_the_worker(self, stage: Stage) -> None:
        body = ag_ui("b-1", ("user", "do"), **BROUGHT)
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, given = await stage.next()
        assert list(given.brought.tools) == ["where", "paint"]
        assert given.brought.tools["where"].parameters == WHERE["parameters"]
        assert [(one.description, one.value) for one in given.brought.context] == [
            ("the page", "/orders"),
            ("the state that the application shares", '{"dark": true}'),
        ]
        await stage.worker.finish(run)
        await asking

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"tools": [{"name": "bash", "description": ""}]}, "tools"),
            ({"tools": [{"name": "final_answer", "description": ""}]}, "tools"),
            ({"tools": [{"name": "a b", "description": ""}]}, "tools.0.name"),
            ({"tools": [{"name": f"t{n}", "description": ""} for n in range(65)]}, "tools"),
            ({"context": [{"description": "", "value": "x" * 300_000}]}, "context"),
            ({"state": ["x" * 300_000]}, "context"),
            (paints({"type": "string"}), "tools.paint.parameters.type"),
            (paints({"properties": {"x": 3}}), "tools.paint.parameters.properties.x"),
            (paints({"required": "x"}), "tools.paint.parameters.required"),
            (paints({"properties": {"x": {"$ref": "#/$defs/y"}}}), "tools.paint.parameters"),
        ],
    )
    async def test_what_cannot_be_is_refused(self, stage: Stage, wrong: Any, field: str) -> None:
        error = await refused(stage, AG_UI, ag_ui("b-2", ("user", "do"), **wrong))
        assert error["details"]["fields"][0]["field"] == field

    @pytest.mark.parametrize("kind", ["ag-ui", "ai-sdk"])
    async def test_a_tool_whose_parameters_are_no_schema_is_named(
        self, stage: Stage, kind: str
    ) -> None:
        """Before its run is made: its model's provider would refuse it in the middle."""
        wrong = {"description": "Paints.", "parameters": {"type": "object", "properties": []}}
        if kind == "ag-ui":
            body = ag_ui("b-w", ("user", "do"), tools=[{"name": "paint", **wrong}])
        else:
            body = use_chat("b-w", spoken("user", "do"), tools={"paint": wrong})
        error = await refused(stage, AG_UI if kind == "ag-ui" else USE_CHAT, body)
        assert "tools.paint.parameters.properties: it is no JSON Schema" in error["message"]

    @pytest.mark.parametrize("given", [None, {}, {"properties": {}}, {"type": "object"}])
    async def test_a_tool_needs_to_say_nothing_of_its_parameters(
        self, stage: Stage, given: Any
    ) -> None:
        body = ag_ui(f"b-n-{given}", ("user", "do"), **paints(given))
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, taken = await stage.next()
        assert taken.brought.tools["paint"].parameters == given
        await stage.worker.finish(run)
        await asking

    async def test_a_client_of_ag_ui_answers_its_calls(self, stage: Stage) -> None:
        body = ag_ui("b-3", ("user", "do"), **BROUGHT)
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, _ = await stage.next()
        calls = called("bash"), fronts("where"), fronts("paint", "f2", color="red")
        await stage.worker.append(run, said("I ask."), *calls)
        await stage.worker.append(run, answered("bash"), wait=True)
        events, _ = await asking
        both = [f"{run.run_id}:{call}" for call in ("f1", "f2")]
        assert events[-1]["outcome"] == {"type": "success", "pendingToolCallIds": both}
        assert (await stage.get(run.run_id))["waitsFor"] == "result"
        messages = [
            *body["messages"],
            {"id": "a", "role": "assistant", "content": "I ask."},
            {
                "id": "b",
                "role": "tool",
                "toolCallId": f"{run.run_id}:c1",
                "content": "what it was told itself",
            },
            {"id": "c", "role": "tool", "toolCallId": both[0], "content": "Bern"},
        ]
        one = {**body, "messages": messages}
        events, _ = await posted(stage, AG_UI, one)  # the other call is open still
        assert [event["type"] for event in events] == ["RUN_STARTED", "RUN_FINISHED"]
        assert events[-1]["outcome"] == {"type": "success", "pendingToolCallIds": both[1:]}
        assert (await stage.get(run.run_id))["status"] == "waiting"
        failed = {
            "id": "d",
            "role": "tool",
            "toolCallId": both[1],
            "content": "",
            "error": "no paint",
        }
        all_ = {**one, "messages": [*messages, failed], "context": []}
        asking = asyncio.create_task(posted(stage, AG_UI, all_))
        again, given = await stage.next()
        assert (again.run_id, again.lease) == (run.run_id, run.lease + 1)
        results = [one.data for one in given.log if one.type == "tool-result"]
        assert [(one["output"], one["failed"]) for one in results] == [
            ("ok", False),
            ("Bern", False),
            ("no paint", True),
        ]
        assert len(given.brought.context) == 1  # of the application nothing is said but its state
        await stage.worker.finish(again, "Done.")
        events, _ = await asking
        assert "TOOL_CALL_RESULT" not in [event["type"] for event in events]
        repeated, _ = await posted(stage, AG_UI, all_)  # as it does where the answer was lost
        assert [event["type"] for event in repeated] == [event["type"] for event in events]

    async def test_a_chat_answers_its_calls(self, stage: Stage) -> None:
        hello = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "do"}]}
        body = use_chat("b-4", hello, tools={"where": WHERE})
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, _ = await stage.next()
        await stage.worker.append(run, said("I ask."), called("bash"), fronts("where"))
        await stage.worker.append(run, answered("bash"), wait=True)
        chunks, _ = await asking
        begun = {one["toolCallId"]: one for one in chunks if one["type"] == "tool-input-available"}
        assert begun["c1"]["dynamic"]
        assert "dynamic" not in begun["f1"]
        assert chunks[-1] == {"type": "finish", "finishReason": "tool-calls"}
        parts = [
            {
                "type": "dynamic-tool",
                "toolCallId": "c1",
                "state": "output-available",
                "output": "ok",
            },
            {
                "type": "tool-where",
                "toolCallId": "f1",
                "state": "output-available",
                "output": {"x": 1},
            },
        ]
        answer = {"id": chunks[0]["messageId"], "role": "assistant", "parts": parts}
        asking = asyncio.create_task(
            posted(stage, USE_CHAT, use_chat("b-4", hello, answer, tools={"where": WHERE}))
        )
        again, given = await stage.next()
        assert given.log[-1].data["output"] == '{"x": 1}'
        await stage.worker.finish(again, "Done.")
        chunks, _ = await asking
        assert chunks[0]["messageId"] == answer["id"]
        assert "".join(one["delta"] for one in chunks if one["type"] == "text-delta") == "Done."

    async def test_a_chat_does_not_go_on_with_what_has_ended(self, stage: Stage) -> None:
        """It would send the same again by itself, for it has an output of each call."""
        hello = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "do"}]}
        body = use_chat("b-8", hello, tools={"where": WHERE})
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, _ = await stage.next()
        await stage.worker.append(run, said("I ask."), fronts("where"), wait=True)
        chunks, _ = await asking
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        part = {"type": "tool-where", "toolCallId": "f1", "state": "output-available", "output": 1}
        answer = {"id": chunks[0]["messageId"], "role": "assistant", "parts": [part]}
        late = use_chat("b-8", hello, answer, tools={"where": WHERE})
        refused = await stage.org.http.post(USE_CHAT, json=late)
        assert refused.status_code == 409, refused.text
        assert refused.json()["error"]["code"] == "run_ended"

    async def test_a_word_in_place_of_a_result(self, stage: Stage) -> None:
        body = ag_ui("b-5", ("user", "do"), **BROUGHT)
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, _ = await stage.next()
        await stage.worker.append(run, said("I ask."), fronts("where"), wait=True)
        await asking
        nothing = await stage.org.http.post(AG_UI, json={**body, "messages": body["messages"][:0]})
        assert nothing.status_code == 400
        more = ag_ui("b-5", ("user", "do"), ("assistant", "I ask."), ("user", "never mind"))
        asking = asyncio.create_task(posted(stage, AG_UI, more))
        again, given = await stage.next()
        assert given.log[-1].data["steering"] == "interrupt"
        await stage.worker.append(again, answered("where", "f1", output="broken off", failed=True))
        await stage.worker.finish(again, "As you like.")
        await asking

    async def test_a_decision_and_a_result_at_once(self, stage: Stage) -> None:
        body = ag_ui("b-6", ("user", "do"), **BROUGHT)
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, _ = await stage.next()
        calls = called("bash"), fronts("where"), asked("bash")
        await stage.worker.append(run, said("I ask."), *calls, wait=True)
        [interrupt] = (await asking)[0][-1]["outcome"]["interrupts"]
        assert (await stage.get(run.run_id))["waitsFor"] == "approval"
        yes = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}
        told = {"id": "t", "role": "tool", "toolCallId": f"{run.run_id}:f1", "content": "Bern"}
        both = {**body, "messages": [*body["messages"], told], "resume": [yes]}
        asking = asyncio.create_task(posted(stage, AG_UI, both))
        again, given = await stage.take(run.run_id)
        assert {one.type for one in given.log[-2:]} == {"tool-result", "approval-resolved"}
        await stage.worker.append(again, answered("bash"))
        await stage.worker.finish(again)
        await asking

    async def test_one_whose_run_is_ended_hears_of_it(self, stage: Stage) -> None:
        body = ag_ui("b-7", ("user", "do"), **BROUGHT)
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, _ = await stage.next()
        await stage.worker.append(run, said("I ask."), fronts("where"), wait=True)
        await asking
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        asked_ = {"id": "a", "role": "assistant", "content": "I ask."}
        told = {"id": "t", "role": "tool", "toolCallId": f"{run.run_id}:f1", "content": "Bern"}
        late = {**body, "messages": [*body["messages"], asked_, told]}
        events, _ = await posted(stage, AG_UI, late)
        assert events[-1]["outcome"] == {"type": "cancelled"}

    async def test_a_page_that_is_loaded_anew_carries_nothing_out_again(self, stage: Stage) -> None:
        hello = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "do"}]}
        body = use_chat("b-9", hello, tools={"where": WHERE})
        asking = asyncio.create_task(posted(stage, USE_CHAT, body))
        run, _ = await stage.next()
        calls = fronts("where", exactly=True), fronts("where", "f2")
        await stage.worker.append(run, said("I ask."), *calls, wait=True)
        chunks, _ = await asking
        done_ = {"type": "tool-where", "toolCallId": "f1", "state": "output-available", "output": 1}
        open_ = {"type": "tool-where", "toolCallId": "f2", "state": "input-available"}
        answer = {"id": chunks[0]["messageId"], "role": "assistant", "parts": [done_, open_]}
        await posted(stage, USE_CHAT, use_chat("b-9", hello, answer, tools={"where": WHERE}))
        again, _, _ = await lines(stage, "/v1/run/ai-sdk/b-9/stream?agent=coder")
        told = {
            call_id: [one["type"] for one in again if one.get("toolCallId") == call_id]
            for call_id in ("f1", "f2")
        }
        assert told == {
            "f1": ["tool-input-start", "tool-input-delta", "tool-output-available"],
            "f2": ["tool-input-start", "tool-input-available"],
        }
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")

    async def test_a_result_of_a_message_before_a_word_is_taken_in(self, stage: Stage) -> None:
        first = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "do"}]}
        word = {"id": "m2", "role": "user", "parts": [{"type": "text", "text": "and tell me"}]}
        tools = {"where": WHERE}
        asking = stage.org.http.stream("POST", USE_CHAT, json=use_chat("b-10", first, tools=tools))
        async with asyncio.timeout(20), asking:  # it stops reading while a command runs
            run, _ = await stage.next()
            calls = called("bash"), fronts("where")
            news = await stage.worker.append(run, said("I ask."), *calls)
        last = news.events[-1].seq or 0
        part = {"type": "tool-where", "toolCallId": "f1", "state": "input-available"}
        answer = {"id": run.run_id, "role": "assistant", "parts": [part]}
        body = use_chat("b-10", first, answer, word, tools=tools)
        asking = stage.org.http.stream("POST", USE_CHAT, json=body)
        async with asyncio.timeout(20), asking as second:
            assert second.status_code == 200
        parts = [{**part, "state": "output-available", "output": "Bern"}]
        later = {"id": f"{run.run_id}-{last}", "role": "assistant", "parts": []}
        body = use_chat("b-10", first, {**answer, "parts": parts}, word, later, tools=tools)
        reading = asyncio.create_task(posted(stage, USE_CHAT, body))
        assert await results_after(stage, run, last) == ["Bern"]
        await stage.worker.append(run, answered("bash"))
        await stage.worker.finish(run, "Done.")
        await reading

    @pytest.mark.parametrize("behind_its_call", [True, False])
    async def test_a_client_of_ag_ui_may_be_late(self, stage: Stage, behind_its_call: bool) -> None:
        """A word was said meanwhile: clients put a result behind its call, or behind all that was said."""
        body = ag_ui(f"b-13-{behind_its_call}", ("user", "do"), **BROUGHT)
        asking = stage.org.http.stream("POST", AG_UI, json=body)
        async with asyncio.timeout(20), asking:
            run, _ = await stage.next()
            calls = called("bash"), fronts("where")
            news = await stage.worker.append(run, said("I ask."), *calls)
        last = news.events[-1].seq or 0
        answer = {"id": "a", "role": "assistant", "content": "I ask."}
        word = {"id": "w", "role": "user", "content": "and tell me"}
        so_far = [*body["messages"], answer, word]
        asking = stage.org.http.stream("POST", AG_UI, json={**body, "messages": so_far})
        async with asyncio.timeout(20), asking as second:
            assert second.status_code == 200
        told = {"id": "t", "role": "tool", "toolCallId": f"{run.run_id}:f1", "content": "Bern"}
        more = {"id": "b", "role": "assistant", "content": "I am at it."}
        so_far.insert(2 if behind_its_call else 3, told)
        body["messages"] = [*so_far, more]
        reading = asyncio.create_task(posted(stage, AG_UI, body))
        assert await results_after(stage, run, last) == ["Bern"]
        await stage.worker.append(run, answered("bash"))
        await stage.worker.finish(run, "Done.")
        await reading

    async def test_decisions_of_one_body_are_taken_together_or_not_at_all(
        self, stage: Stage
    ) -> None:
        body = ag_ui("b-11", ("user", "do"), **BROUGHT)
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, _ = await stage.next()
        both = [one for n in "12" for one in (called("bash", f"c{n}"), asked("bash", f"c{n}"))]
        await stage.worker.append(run, said("May I?"), *both, fronts("where"), wait=True)
        waiting = (await asking)[0][-1]["outcome"]["interrupts"]
        no = {"callId": "c2", "decision": "deny"}
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/approve", json=no)
        resume = [
            {"interruptId": one["id"], "status": "resolved", "payload": {"approved": True}}
            for one in waiting
        ]
        told = {"id": "t", "role": "tool", "toolCallId": f"{run.run_id}:f1", "content": "Bern"}
        wrong = {**body, "messages": [*body["messages"], told], "resume": resume}
        answer = await stage.org.http.post(AG_UI, json=wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "already_decided")
        again, given = await stage.take(run.run_id)
        resolved = [one.data["callId"] for one in given.log if one.type == "approval-resolved"]
        assert resolved == ["c2"]
        assert "tool-result" not in [one.type for one in given.log]
        await stage.worker.finish(again)

    async def test_a_call_has_one_result_whoever_is_faster(self, stage: Stage) -> None:
        """A worker that is to end the run has not heard yet of what the front end says."""
        body = ag_ui("b-12", ("user", "do"), **BROUGHT)
        asking = asyncio.create_task(posted(stage, AG_UI, body))
        run, _ = await stage.next()
        calls = called("bash"), fronts("where")
        news = await stage.worker.append(run, said("I ask."), *calls)
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")
        told = {"id": "t", "role": "tool", "toolCallId": f"{run.run_id}:f1", "content": "Bern"}
        with_result = {**body, "messages": [*body["messages"], told]}
        giving = asyncio.create_task(posted(stage, AG_UI, with_result))
        last = news.events[-1].seq or 0
        async with asyncio.timeout(20):
            while not (await stage.worker.read(run, last)).events:
                await asyncio.sleep(0.01)
        ending = [
            answered("bash", output="cancelled", failed=True),
            answered("where", "f1", output="cancelled", failed=True),
            done(status="cancelled"),
        ]
        for _ in range(2):  # it says so once more where its answer was lost
            stands = (await stage.worker.append(run, *ending)).events
            assert [one.data.get("output") for one in stands] == ["cancelled", "Bern", None]
        log = await stage.events(run.run_id)
        results = [one["data"] for one in log if one["type"] == "tool-result"]
        assert [(one["callId"], one["output"]) for one in results] == [
            ("f1", "Bern"),
            ("c1", "cancelled"),
        ]
        assert [one["seq"] for one in log] == list(range(1, len(log) + 1))
        await asking
        await giving


class TestRepeats:
    """Under one idempotency key, after an answer that was not heard to its end."""

    @pytest.mark.parametrize("seen", [True, False])
    async def test_a_run_that_was_made_is_told_again(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, seen: bool
    ) -> None:
        """While it is under way: the word would be said to it once more."""
        body = use_chat(f"c-7-{seen}", spoken("user", "once"))
        asking = stage.org.http.stream(
            "POST", USE_CHAT, json=body, headers=repeated(f"chat-7-{seen}")
        )
        async with asyncio.timeout(20), asking as first:
            run, _ = await stage.next()
            assert first.headers["x-run-id"] == run.run_id
        if not seen:  # another process has made it just after the look
            monkeypatch.setattr(service, "_done_before", lambda *_: None)
        again = stage.org.http.stream(
            "POST", USE_CHAT, json=body, headers=repeated(f"chat-7-{seen}")
        )
        async with asyncio.timeout(20), again as second:
            assert second.status_code == 200, await second.aread()
            assert second.headers["x-run-id"] == run.run_id
            await stage.worker.finish(run, "Once.")
            assert "Once." in (await second.aread()).decode()
        await one_word_each(stage, run.run_id, ["once", "Once."])

    async def test_nor_is_a_word_said_twice(self, stage: Stage) -> None:
        """After the run that it was said to has ended: it would make another one."""
        asking = asyncio.create_task(posted(stage, USE_CHAT, use_chat("c-8", spoken("user", "a"))))
        run, _ = await stage.next()
        body = use_chat("c-8", spoken("user", "b"))
        saying = stage.org.http.stream("POST", USE_CHAT, json=body, headers=repeated("chat-8"))
        async with asyncio.timeout(20), saying as first:
            assert first.headers["x-run-id"] == run.run_id
            await stage.worker.finish(run, "c")
            await first.aread()
        again, headers = await posted(stage, USE_CHAT, body, repeated("chat-8"))
        assert headers["x-run-id"] == run.run_id
        assert again[-1]["type"] == "finish"
        await asking
        await one_word_each(stage, run.run_id, ["a", "b", "c"])


def repeated(key: str) -> dict[str, str]:
    """The header by which repeats are known."""
    return {"Idempotency-Key": key}


async def one_word_each(stage: Stage, run_id: str, words: list[str]) -> None:
    """A run is the only one of its thread, and has heard and said this."""
    log = await stage.events(run_id)
    assert [one["data"]["text"] for one in log if one["type"] == "message"] == words
    thread = (await stage.get(run_id))["threadId"]
    listed = await stage.org.ask("GET", f"/v1/runs?threadId={thread}")
    assert [one["id"] for one in listed] == [run_id]


class TestMuch:
    async def test_agents_may_be_named_by_id(self, stage: Stage) -> None:
        [agent] = [
            one for one in await stage.org.ask("GET", "/v1/agents") if one["slug"] == "coder"
        ]
        path = f"/v1/run/ai-sdk?agent={agent['id']}"
        for said_ in ("a", "b"):
            body = use_chat("c-9", spoken("user", said_))
            asking = asyncio.create_task(posted(stage, path, body))
            run, _ = await stage.next()
            await stage.worker.finish(run, "d")
            await asking

    async def test_what_was_refused_holds_up_no_word_to_a_run_under_way(self, stage: Stage) -> None:
        asking = asyncio.create_task(posted(stage, AG_UI, ag_ui("t-9", ("user", "a"))))
        run, given = await stage.next()
        last = given.log[-1].seq or 0
        before = ("user", "a"), ("assistant", "I work.")
        long = ("user", "x" * (MAX_MESSAGE_CHARACTERS + 1))
        many = ("user", [PICTURE] * 17)
        for wrong, field in ((long, "messages.2.content"), (many, "messages.2.images")):
            answer = await stage.org.http.post(AG_UI, json=ag_ui("t-9", *before, wrong))
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["details"]["fields"][0]["field"] == field
        body = ag_ui("t-9", *before, long, many, ("user", "in short"))
        saying = asyncio.create_task(posted(stage, AG_UI, body))
        async with asyncio.timeout(20):
            while not (found := (await stage.worker.read(run, last)).events):
                await asyncio.sleep(0.01)
        first, second, third = (one.data for one in found)
        assert "left out here" in first["text"]
        assert ("too many" in second["text"], len(second["images"])) == (True, 16)
        assert (third["text"], third["steering"]) == ("in short", "queue")
        await stage.worker.finish(run, "b")
        await asking
        await saying


async def test_one_chat_of_two_agents_is_two_threads(stage: Stage) -> None:
    threads = set()
    for agent in ("coder", "shared"):
        path = f"/v1/run/ai-sdk?agent={agent}"
        asking = asyncio.create_task(posted(stage, path, use_chat("c-6", spoken("user", "a"))))
        run, given = await stage.next()
        threads.add(given.run.thread_id)
        await stage.worker.finish(run, "b")
        await asking
    assert len(threads) == 2
