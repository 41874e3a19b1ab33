"""A run as its readers get it: deltas, then what was kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.runs import (
    PAYLOADS,
    Delta,
    DeltaType,
    Done,
    DurableType,
    Message,
    RunEvent,
    RunUsage,
    Started,
    ToolCall,
    ToolOutput,
    ToolResult,
    TurnUsage,
)

RUN = "run_" + "r" * 20
THREAD = "thr_" + "t" * 20


def event(kind: DurableType | DeltaType, payload: Shape, seq: int | None = None) -> RunEvent:
    assert isinstance(payload, PAYLOADS[kind])
    data: dict[str, Any] = payload.model_dump(mode="json")
    return RunEvent(type=kind, seq=seq, run_id=RUN, at=datetime.now(UTC), data=data)


def text(said: str, turn: int = 1, attempt: int = 1) -> RunEvent:
    return event("text-delta", Delta(text=said, turn=turn, attempt=attempt))


def thought(said: str, turn: int = 1, attempt: int = 1) -> RunEvent:
    return event("thinking", Delta(text=said, turn=turn, attempt=attempt))


def answer(said: str, turn: int = 1, thinking: str | None = None) -> RunEvent:
    return event("message", Message(role="assistant", text=said, thinking=thinking, turn=turn), 9)


def started() -> RunEvent:
    payload = Started(agent_slug="hello", agent_version=1, model="demo", thread_id=THREAD)
    return event("run-started", payload, 1)


def call(call_id: str = "c1", turn: int = 1, *, front: bool = False) -> RunEvent:
    arguments = {"command": "ls"}
    wanted = ToolCall(call_id=call_id, name="bash", arguments=arguments, turn=turn, front=front)
    return event("tool-call", wanted)


def output(said: str, call_id: str = "c1") -> RunEvent:
    return event("tool-output-delta", ToolOutput(call_id=call_id, text=said, attempt=1))


def result(said: str, call_id: str = "c1", *, failed: bool = False, turn: int = 1) -> RunEvent:
    payload = ToolResult(
        call_id=call_id, name="bash", output=said, failed=failed, duration_ms=3, turn=turn
    )
    return event("tool-result", payload, 11)


def usage(turn: int = 1) -> RunEvent:
    total = RunUsage(input_tokens=10, output_tokens=2, requests=turn)
    return event("usage", TurnUsage(**total.model_dump(), turn=turn, total=total), 10)


def done(**fields: Any) -> RunEvent:
    given = {"status": "completed", "output": "All done.", "usage": RunUsage(), "iterations": 2}
    return event("done", Done(**{**given, **fields}), 20)


def live() -> list[RunEvent]:
    """As somebody sees it who reads from the beginning while it goes on."""
    return [
        started(),
        event("message", Message(role="user", text="Look.", turn=0), 2),
        thought("Let me "),
        thought("see."),
        text("I look"),
        text(" around."),
        answer("I look around.", thinking="Let me see."),
        call(),
        usage(),
        output("a\n"),
        result("a\n[exit code 0]"),
        text("All done.", turn=2),
        answer("All done.", turn=2),
        usage(2),
        done(),
    ]


def kept() -> list[RunEvent]:
    """The same from the log alone."""
    return [one for one in live() if one.seq is not None or one.type == "tool-call"]
