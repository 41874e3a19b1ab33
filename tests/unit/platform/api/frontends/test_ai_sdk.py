"""What a front end on the AI SDK is told of a run."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import pytest
from tests.unit.platform.api.frontends import worlds
from tests.unit.platform.api.frontends.worlds import RUN, THREAD, event

from runtools.platform.api.frontends import streams
from runtools.platform.api.frontends.ai_sdk import Chunks, call_name
from runtools.sdk.shapes.runs import (
    ApprovalRequested,
    ApprovalResolved,
    Message,
    RunError,
    RunEvent,
    ToolImage,
    ToolResult,
)

ASKED = event(
    "approval-requested", ApprovalRequested(call_id="c1", name="bash", arguments={}, turn=1), 5
)


def told(events: Iterable[RunEvent]) -> list[dict[str, Any]]:
    chunks = Chunks(RUN)
    return [*chunks.begin(), *(chunk for one in events for chunk in chunks.of(one))]


def kinds(chunks: Iterable[dict[str, Any]]) -> list[str]:
    return [chunk["type"] for chunk in chunks]


def test_a_whole_run() -> None:
    call = {"toolCallId": "c1", "toolName": "bash", "dynamic": True}
    chunks = told(worlds.live())
    usages = [each for each in chunks if "usage" in each.get("messageMetadata", {})]
    assert len(usages) == 2
    assert [one for one in chunks if one not in usages] == [
        {"type": "start", "messageId": RUN},
        {"type": "message-metadata", "messageMetadata": {"runId": RUN, "threadId": THREAD}},
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "thinking-1.1.1"},
        {"type": "reasoning-delta", "id": "thinking-1.1.1", "delta": "Let me "},
        {"type": "reasoning-delta", "id": "thinking-1.1.1", "delta": "see."},
        {"type": "reasoning-end", "id": "thinking-1.1.1"},
        {"type": "text-start", "id": "text-1.1.2"},
        {"type": "text-delta", "id": "text-1.1.2", "delta": "I look"},
        {"type": "text-delta", "id": "text-1.1.2", "delta": " around."},
        {"type": "text-end", "id": "text-1.1.2"},
        {"type": "tool-input-start", **call},
        {"type": "tool-input-available", **call, "input": {"command": "ls"}},
        {
            "type": "data-tool-output",
            "data": {"toolCallId": "c1", "text": "a\n"},
            "transient": True,
        },
        {
            "type": "tool-output-available",
            "toolCallId": "c1",
            "dynamic": True,
            "output": "a\n[exit code 0]",
        },
        {"type": "finish-step"},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-2.1.1"},
        {"type": "text-delta", "id": "text-2.1.1", "delta": "All done."},
        {"type": "text-end", "id": "text-2.1.1"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "stop",
            "messageMetadata": {"status": "completed"},
        },
    ]
    assert usages[0]["messageMetadata"]["usage"]["inputTokens"] == 10


def test_who_comes_later_is_shown_the_same_parts() -> None:
    live = [kind for kind in kinds(told(worlds.live())) if kind != "data-tool-output"]
    once = [kind for kind, before in zip(live, ["", *live], strict=False) if kind != before]
    assert kinds(told(worlds.kept())) == once


def test_a_failed_call() -> None:
    assert told([worlds.call(), worlds.result("no such file", failed=True)])[-1] == {
        "type": "tool-output-error",
        "toolCallId": "c1",
        "dynamic": True,
        "errorText": "no such file",
    }


def test_what_was_carried_out_is_not_carried_out_again() -> None:
    """Of what is available a front end carries out what is its own, each time that it hears of it."""
    chunks = Chunks(RUN)
    chunks.know({"c1"})
    said = [
        chunk
        for call_id in ("c1", "c2")
        for chunk in chunks.of(worlds.call(call_id, front=True))
        if chunk["type"].startswith("tool-")
    ]
    assert said == [
        {"type": "tool-input-start", "toolCallId": "c1", "toolName": "bash"},
        {"type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": '{"command": "ls"}'},
        {"type": "tool-input-start", "toolCallId": "c2", "toolName": "bash"},
        {
            "type": "tool-input-available",
            "toolCallId": "c2",
            "toolName": "bash",
            "input": {"command": "ls"},
        },
    ]


def test_a_picture() -> None:
    image = ToolImage(media_type="image/png", data="aGk=")
    shown = ToolResult(call_id="c1", name="look", output="", images=[image], duration_ms=1, turn=1)
    picture = {"toolCallId": "c1", "mediaType": "image/png", "url": "data:image/png;base64,aGk="}
    chunks = told([worlds.call(), event("tool-result", shown, 4)])
    assert {"type": "data-tool-picture", "data": picture, "transient": True} in chunks
    kept = [one for one in chunks if not one.get("transient")]
    assert "aGk=" not in str(kept)  # or the chat would send it with every message


def test_a_denied_call_is_said_to_be_denied_once() -> None:
    denied = ApprovalResolved(call_id="c1", decision="deny", reason="no", actor="usr_1")
    chunks = told(
        [
            worlds.call(),
            ASKED,
            event("approval-resolved", denied, 6),
            worlds.result("denied: no", failed=True),
        ]
    )
    assert kinds(chunks)[-2:] == ["tool-approval-request", "tool-output-denied"]
    assert chunks[-2]["approvalId"] == call_name(RUN, "c1")


def test_one_that_is_allowed_is_said_to_be() -> None:
    allowed = ApprovalResolved(call_id="c1", decision="allow", actor="usr_1")
    events = [worlds.call(), ASKED, event("approval-resolved", allowed, 6), worlds.result("ok")]
    answer = {"type": "tool-approval-response", "approvalId": call_name(RUN, "c1")}
    chunks = told(events)
    assert chunks[-2:] == [
        {**answer, "approved": True},
        {"type": "tool-output-available", "toolCallId": "c1", "dynamic": True, "output": "ok"},
    ]


@pytest.mark.parametrize("failed", [False, True])
def test_of_a_call_that_the_message_has_not_nothing_is_told_as_of_one(failed: bool) -> None:
    """A front end gives up where it is told of a call that it does not know."""
    denied = ApprovalResolved(call_id="c1", decision="deny", actor="usr_1")
    chunks = told([event("approval-resolved", denied, 6), worlds.result("no", failed=failed)])
    said = {"toolCallId": "c1", "toolName": "bash", "output": "no", "failed": failed}
    assert chunks[1:] == [{"type": "data-tool-result", "data": said}]


def test_of_one_that_it_has_from_before_it_is() -> None:
    chunks = Chunks(RUN, "theirs", calls=["c1"])
    assert kinds(chunks.of(worlds.result("ok"))) == ["tool-output-available"]


def test_a_question_about_a_call_of_before_brings_the_call_along() -> None:
    assert kinds([*told([ASKED]), *told([worlds.call(), ASKED])])[1:5] == [
        "start-step",
        "tool-input-start",
        "tool-input-available",
        "tool-approval-request",
    ]


def test_a_run_that_waits_ends_its_message() -> None:
    chunks = Chunks(RUN)
    list(chunks.of(worlds.text("Wait")))
    assert kinds(chunks.pause()) == ["text-end", "finish-step", "finish"]


def test_its_ends() -> None:
    failed = worlds.done(status="failed", error=RunError(code="overloaded", message="too busy"))
    assert kinds(told([failed]))[1:] == ["error", "finish"]
    assert kinds(told([worlds.done(status="cancelled")]))[1:] == ["abort"]
    limited = told([worlds.done(status="limit_reached", limit="max_iterations")])
    assert limited[-1]["finishReason"] == "length"
    assert limited[-1]["messageMetadata"]["limit"] == "max_iterations"
    structured = told([worlds.done(structured={"n": 1})])
    assert structured[-1]["messageMetadata"]["structured"] == {"n": 1}


def test_what_a_person_said_meanwhile() -> None:
    said = Message(role="user", text="Stop that.", turn=1, steering="interrupt")
    assert told([event("message", said, 3)])[1:] == [
        {"type": "data-steering", "data": {"text": "Stop that."}}
    ]


async def test_a_chunk_is_one_line_whatever_ends_one() -> None:
    """Readers that go by what Python takes for lines, as httpx does, would hear a part of it."""

    async def written() -> AsyncGenerator[bytes, None]:
        yield b"data: " + worlds.text("a\u2028b\x85c").model_dump_json().encode() + b"\n\n"

    async def waits() -> int | None:
        return None

    async def before() -> streams.Before:
        return streams.Before([], ())

    telling = streams.translated("ai-sdk", Chunks(RUN), written(), 0, waits, before)
    frames = b"".join([one async for one in telling]).decode().splitlines()
    chunks = [json.loads(one.removeprefix("data: ")) for one in frames[:-2] if one]
    assert [one["delta"] for one in chunks if one["type"] == "text-delta"] == ["a\u2028b\x85c"]
