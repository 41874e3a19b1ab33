"""What a front end on AG-UI is told of a run, each event as the protocol's own models take it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import pytest
from ag_ui.core import Event
from pydantic import TypeAdapter
from tests.unit.platform.api.frontends import worlds
from tests.unit.platform.api.frontends.worlds import RUN, event

from runtools.platform.api.frontends import streams
from runtools.platform.api.frontends.ag_ui import Events
from runtools.sdk.shapes.runs import (
    ApprovalRequested,
    ApprovalResolved,
    Compaction,
    RunError,
    RunEvent,
    ToolImage,
    ToolResult,
    Trouble,
)

KNOWN: TypeAdapter[Any] = TypeAdapter(Event)
ASKED = event(
    "approval-requested", ApprovalRequested(call_id="c1", name="bash", arguments={}, turn=1), 5
)


def told(events: Iterable[RunEvent], *, pauses: bool = False) -> list[dict[str, Any]]:
    teller = Events("their-thread", "their-run")
    said = [*teller.begin(), *(each for one in events for each in teller.of(one))]
    said += teller.pause() if pauses else ()
    for each in said:
        KNOWN.validate_python(each)
    return said


def kinds(said: Iterable[dict[str, Any]]) -> list[str]:
    return [each["type"] for each in said if each["type"] != "CUSTOM"]


def test_a_whole_run() -> None:
    said = told(worlds.live())
    assert kinds(said) == [
        "RUN_STARTED",
        "STEP_STARTED",
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
        "STEP_FINISHED",
        "STEP_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "STEP_FINISHED",
        "RUN_FINISHED",
    ]
    assert said[0] == {"type": "RUN_STARTED", "threadId": "their-thread", "runId": "their-run"}
    assert said[-1]["result"] == {"status": "completed", "output": "All done."}
    assert RUN not in str(kinds(said))


def test_a_run_that_waits_is_interrupted_by_what_is_not_decided() -> None:
    allowed = ApprovalResolved(call_id="c0", decision="allow", actor="usr_1")
    other = ApprovalRequested(call_id="c0", name="bash", arguments={}, turn=1)
    said = told(
        [
            event("approval-requested", other, 4),
            ASKED,
            event("approval-resolved", allowed, 6),
        ],
        pauses=True,
    )
    outcome = said[-1]["outcome"]
    assert outcome["type"] == "interrupt"
    assert [each["toolCallId"] for each in outcome["interrupts"]] == [f"{RUN}:c1"]


@pytest.mark.parametrize(
    ("fields", "kind", "outcome"),
    [
        ({}, "RUN_FINISHED", "success"),
        ({"status": "cancelled"}, "RUN_FINISHED", "cancelled"),
        ({"status": "limit_reached", "limit": "max_cost_usd"}, "RUN_FINISHED", "success"),
        ({"structured": {"n": 1}}, "RUN_FINISHED", "success"),
        (
            {"status": "failed", "error": RunError(code="refused", message="it will not")},
            "RUN_ERROR",
            None,
        ),
    ],
)
def test_its_ends(fields: dict[str, Any], kind: str, outcome: str | None) -> None:
    last = told([worlds.done(**fields)])[-1]
    assert last["type"] == kind
    assert last.get("outcome", {}).get("type") == outcome


def test_what_the_protocol_has_no_word_for() -> None:
    compaction = Compaction(turn=3, tokens_before=100, summary="So far …")
    trouble = Trouble(code="overloaded", message="too busy", turn=3, retrying=1.0)
    said = told([event("compaction", compaction, 3), event("error", trouble, 4), ASKED])
    assert [each["name"] for each in said[1:]] == ["compaction", "error", "approval-requested"]


async def test_a_stream_that_ends_while_nothing_comes_ends_as_it_should(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run begins to wait a moment after it has asked: what waits for its next event is let go of."""
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.001)
    ended = False

    async def written() -> AsyncGenerator[bytes, None]:
        nonlocal ended
        try:
            yield b"data: " + ASKED.model_dump_json().encode() + b"\n\n"
            await asyncio.Event().wait()
        finally:
            ended = True

    assert ASKED.seq is not None
    looks = iter([None, None, ASKED.seq])

    async def waits() -> int | None:
        return next(looks)

    async def before() -> streams.Before:
        return streams.Before([], ())

    teller = Events("their-thread", "their-run")
    pieces = [one async for one in streams.translated("ag-ui", teller, written(), 0, waits, before)]
    assert b"RUN_FINISHED" in b"".join(pieces)
    assert ended


async def test_it_does_not_end_before_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run waits already, and a result that came last is still on its way to the reader."""
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.001)
    assert ASKED.seq is not None
    last = event("compaction", Compaction(turn=3, tokens_before=1, summary="s"), ASKED.seq + 1)
    looked = 0

    async def written() -> AsyncGenerator[bytes, None]:
        yield b"data: " + ASKED.model_dump_json().encode() + b"\n\n"
        while looked < 3:
            await asyncio.sleep(0.001)
        yield b"data: " + last.model_dump_json().encode() + b"\n\n"
        await asyncio.Event().wait()

    async def waits() -> int | None:
        nonlocal looked
        looked += 1
        return last.seq

    async def before() -> streams.Before:
        return streams.Before([], ())

    async with asyncio.timeout(30):
        telling = streams.translated("ag-ui", Events("t", "r"), written(), 0, waits, before)
        said = b"".join([one async for one in telling])
    assert said.index(b"compaction") < said.index(b"RUN_FINISHED")


def test_a_picture() -> None:
    image = ToolImage(media_type="image/png", data="aGk=")
    shown = ToolResult(call_id="c1", name="look", output="", images=[image], duration_ms=1, turn=1)
    said = told([worlds.call(), event("tool-result", shown, 4)])
    picture = {"toolCallId": f"{RUN}:c1", "mediaType": "image/png", "data": "aGk="}
    assert {"type": "CUSTOM", "name": "tool-picture", "value": picture} in said
    kept = [one for one in said if one["type"] == "TOOL_CALL_RESULT"]
    assert "aGk=" not in str(kept)  # or the client would send it with every request


def test_a_call_has_an_id_of_its_own_in_the_conversation() -> None:
    """That of another run may be the same, and its front end keeps both."""
    said = told([worlds.call(front=True), worlds.output("a"), worlds.result("ok")])
    named = [one for one in said if one["type"].startswith("TOOL_CALL_")]
    assert {one["toolCallId"] for one in named} == {f"{RUN}:c1"}
    assert named[-1]["messageId"] == f"result-{RUN}:c1"
    assert f"'toolCallId': '{RUN}:c1'" in str([one for one in said if one["type"] == "CUSTOM"])
    waits = told([worlds.call(front=True)], pauses=True)
    assert waits[-1]["outcome"]["pendingToolCallIds"] == [f"{RUN}:c1"]
