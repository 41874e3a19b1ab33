"""What a front end on the AI SDK is told of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.unit.platform.api.frontends import worlds
from tests.unit.platform.api.frontends.worlds import RUN, THREAD, event

from runtools.platform.api.frontends.ai_sdk import Chunks, approval_id
from runtools.sdk.shapes.runs import (
    ApprovalRequested,
    ApprovalResolved,
    Message,
    RunError,
    RunEvent,
    ToolImage,
    ToolResult,
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
        {"type": "reasoning-start", "id": "thinking-1"},
        {"type": "reasoning-delta", "id": "thinking-1", "delta": "Let me "},
        {"type": "reasoning-delta", "id": "thinking-1", "delta": "see."},
        {"type": "reasoning-end", "id": "thinking-1"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "I look"},
        {"type": "text-delta", "id": "text-2", "delta": " around."},
        {"type": "text-end", "id": "text-2"},
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
        {"type": "text-start", "id": "text-3"},
        {"type": "text-delta", "id": "text-3", "delta": "All done."},
        {"type": "text-end", "id": "text-3"},
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


def test_a_picture() -> None:
    image = ToolImage(media_type="image/png", data="aGk=")
    shown = ToolResult(call_id="c1", name="look", output="", images=[image], duration_ms=1, turn=1)
    assert told([worlds.call(), event("tool-result", shown, 4)])[-1] == {
        "type": "file",
        "url": "data:image/png;base64,aGk=",
        "mediaType": "image/png",
    }


def test_a_denied_call_is_said_to_be_denied_once() -> None:
    asked = ApprovalRequested(call_id="c1", name="bash", arguments={}, turn=1)
    denied = ApprovalResolved(call_id="c1", decision="deny", reason="no", actor="usr_1")
    chunks = told(
        [
            worlds.call(),
            event("approval-requested", asked, 5),
            event("approval-resolved", denied, 6),
            worlds.result("denied: no", failed=True),
        ]
    )
    assert kinds(chunks)[-2:] == ["tool-approval-request", "tool-output-denied"]
    assert chunks[-2]["approvalId"] == approval_id(RUN, "c1")


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
