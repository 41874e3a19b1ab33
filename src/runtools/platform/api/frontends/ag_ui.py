"""A run's events in AG-UI's words. Pure.

Source: the models of the package `ag-ui-protocol` (1.0), against which the tests check each event.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from runtools.platform.api.frontends.speech import Change, Closed, Opened, Speech
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.runs import (
    PAYLOADS,
    ApprovalRequested,
    ApprovalResolved,
    Compaction,
    Delta,
    Done,
    Message,
    RunEvent,
    RunUsage,
    Started,
    ToolCall,
    ToolOutput,
    ToolResult,
    Trouble,
    TurnUsage,
)

Event = dict[str, Any]


@dataclass(slots=True)
class Events:
    """The events of one stream, from wherever in the log it begins.

    Attributes:
        thread_id, run_id: what the front end calls them.
    """

    thread_id: str
    run_id: str
    _speech: Speech = field(default_factory=Speech)
    _step: int | None = None
    _waiting: dict[str, Event] = field(default_factory=dict)

    def begin(self) -> Iterator[Event]:
        """What every stream begins with."""
        yield {"type": "RUN_STARTED", **self._ids()}

    def of(self, event: RunEvent) -> Iterator[Event]:
        """What an event is for a front end; nothing, for some."""
        tell: Callable[[Shape], Iterator[Event]] = getattr(
            self, f"_on_{event.type.replace('-', '_')}"
        )
        yield from tell(PAYLOADS[event.type].model_validate(event.data))

    def pause(self) -> Iterator[Event]:
        """The run waits for approvals: it is interrupted here and goes on when they are given."""
        yield from self._parts(self._speech.close())
        yield from self._step_over()
        interrupts = list(self._waiting.values())
        outcome = {"type": "interrupt", "interrupts": interrupts}
        yield {"type": "RUN_FINISHED", **self._ids(), "outcome": outcome}

    def _ids(self) -> Event:
        return {"threadId": self.thread_id, "runId": self.run_id}

    def _on_run_started(self, started: Started) -> Iterator[Event]:
        yield _custom("run-started", started.model_dump(mode="json"))

    def _on_text_delta(self, delta: Delta) -> Iterator[Event]:
        yield from self._in_step(delta.turn)
        yield from self._parts(self._speech.hear("text", delta))

    def _on_thinking(self, delta: Delta) -> Iterator[Event]:
        yield from self._in_step(delta.turn)
        yield from self._parts(self._speech.hear("thinking", delta))

    def _on_message(self, message: Message) -> Iterator[Event]:
        if message.role == "assistant":
            yield from self._in_step(message.turn)
            yield from self._parts(self._speech.settle(message))
        elif message.steering is not None:
            yield _custom("steering", {"text": message.text})

    def _on_tool_call(self, call: ToolCall) -> Iterator[Event]:
        yield from self._in_step(call.turn)
        named = {"toolCallId": call.call_id}
        yield {"type": "TOOL_CALL_START", **named, "toolCallName": call.name}
        yield {"type": "TOOL_CALL_ARGS", **named, "delta": json.dumps(call.arguments)}
        yield {"type": "TOOL_CALL_END", **named}

    def _on_tool_output_delta(self, output: ToolOutput) -> Iterator[Event]:
        yield _custom("tool-output", {"toolCallId": output.call_id, "text": output.text})

    def _on_tool_result(self, result: ToolResult) -> Iterator[Event]:
        yield {
            "type": "TOOL_CALL_RESULT",
            "messageId": f"result-{result.call_id}",
            "toolCallId": result.call_id,
            "content": result.output,
            "role": "tool",
        }

    def _on_approval_requested(self, asked: ApprovalRequested) -> Iterator[Event]:
        self._waiting[asked.call_id] = {
            "id": asked.call_id,
            "reason": "approval",
            "message": f"{asked.name} is to be allowed",
            "toolCallId": asked.call_id,
        }
        yield _custom("approval-requested", asked.model_dump(mode="json"))

    def _on_approval_resolved(self, resolved: ApprovalResolved) -> Iterator[Event]:
        self._waiting.pop(resolved.call_id, None)
        yield _custom("approval-resolved", resolved.model_dump(mode="json"))

    def _on_usage(self, usage: TurnUsage) -> Iterator[Event]:
        yield _custom("usage", usage.model_dump(mode="json"))

    def _on_compaction(self, compaction: Compaction) -> Iterator[Event]:
        yield _custom("compaction", compaction.model_dump(mode="json"))

    def _on_error(self, trouble: Trouble) -> Iterator[Event]:
        yield _custom("error", trouble.model_dump(mode="json"))

    def _on_done(self, done: Done) -> Iterator[Event]:
        yield from self._parts(self._speech.close())
        yield from self._step_over()
        if done.status == "failed":
            error = done.error
            said = ("the run failed", "failed") if error is None else (error.message, error.code)
            message, code = said
            usage = [_tokens(done.usage)]
            yield {"type": "RUN_ERROR", "message": message, "code": code, "usage": usage}
            return
        result: Event = {"status": done.status, "output": done.output}
        if done.structured is not None:
            result["structured"] = done.structured
        if done.limit is not None:
            result["limit"] = done.limit
        kind = "cancelled" if done.status == "cancelled" else "success"
        yield {
            "type": "RUN_FINISHED",
            **self._ids(),
            "result": result,
            "outcome": {"type": kind},
            "usage": [_tokens(done.usage)],
        }

    def _in_step(self, turn: int) -> Iterator[Event]:
        if self._step is not None and turn <= self._step:
            return
        yield from self._parts(self._speech.close())
        yield from self._step_over()
        self._step = turn
        yield {"type": "STEP_STARTED", "stepName": f"turn {turn}"}

    def _step_over(self) -> Iterator[Event]:
        if self._step is not None:
            yield {"type": "STEP_FINISHED", "stepName": f"turn {self._step}"}

    def _parts(self, changes: list[Change]) -> Iterator[Event]:
        for change in changes:
            named = {"messageId": f"{self.run_id}-{change.id}"}
            if change.kind == "text":
                yield from _spoken(change, named)
            else:
                yield from _thought(change, named)


def _spoken(change: Change, named: Event) -> Iterator[Event]:
    if isinstance(change, Opened):
        yield {"type": "TEXT_MESSAGE_START", **named, "role": "assistant"}
    elif isinstance(change, Closed):
        yield {"type": "TEXT_MESSAGE_END", **named}
    else:
        yield {"type": "TEXT_MESSAGE_CONTENT", **named, "delta": change.text}


def _thought(change: Change, named: Event) -> Iterator[Event]:
    if isinstance(change, Opened):
        yield {"type": "REASONING_START", **named}
        yield {"type": "REASONING_MESSAGE_START", **named, "role": "reasoning"}
    elif isinstance(change, Closed):
        yield {"type": "REASONING_MESSAGE_END", **named}
        yield {"type": "REASONING_END", **named}
    else:
        yield {"type": "REASONING_MESSAGE_CONTENT", **named, "delta": change.text}


def _custom(name: str, value: Any) -> Event:
    return {"type": "CUSTOM", "name": name, "value": value}


def _tokens(usage: RunUsage) -> Event:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }
