"""A run's events in AG-UI's words. Pure.

Source: the models of the package `ag-ui-protocol` (1.0), against which the tests check each event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from runtools.platform.api.frontends.asked import call_name
from runtools.platform.api.frontends.speech import Change, Closed, Opened
from runtools.platform.api.frontends.telling import Piece, Teller
from runtools.sdk.shapes.runs import (
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

_ANSWER = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}


class Events(Teller):
    """The events of one stream.

    Args:
        thread_id, run_id: what the front end calls them.
    """

    def __init__(self, thread_id: str, run_id: str) -> None:
        super().__init__()
        self.thread_id = thread_id
        self.run_id = run_id
        self._ours = run_id
        self._waiting: dict[str, Piece] = {}
        self._fronts: list[str] = []

    def begin(self) -> Iterator[Piece]:
        """What every stream begins with."""
        yield {"type": "RUN_STARTED", **self._ids()}

    def of(self, event: RunEvent) -> Iterator[Piece]:
        """What an event is for a front end; nothing, for some."""
        self._ours = event.run_id
        yield from super().of(event)

    def recall(self, event: RunEvent) -> None:
        """What was asked before: how the stream ends names it, too."""
        self._ours = event.run_id
        if event.type == "approval-requested":
            self._wait_for(ApprovalRequested.model_validate(event.data))
        else:
            self._fronts.append(self._named(event.data["callId"]))

    def pause(self) -> Iterator[Piece]:
        """The run waits for approvals, or for what the front end carries out, and goes on with it."""
        yield from self._close()
        interrupts = list(self._waiting.values())
        outcome: Piece = {"type": "success", "pendingToolCallIds": self._fronts}
        if interrupts:
            outcome = {"type": "interrupt", "interrupts": interrupts}
        yield {"type": "RUN_FINISHED", **self._ids(), "outcome": outcome}

    def _ids(self) -> Piece:
        return {"threadId": self.thread_id, "runId": self.run_id}

    def _named(self, call_id: str) -> str:
        return call_name(self._ours, call_id)

    def _on_run_started(self, started: Started) -> Iterator[Piece]:
        yield _custom("run-started", started.model_dump(mode="json"))

    def _on_text_delta(self, delta: Delta) -> Iterator[Piece]:
        yield from self._in_step(delta.turn)
        yield from self._say(self._speech.hear("text", delta))

    def _on_thinking(self, delta: Delta) -> Iterator[Piece]:
        yield from self._in_step(delta.turn)
        yield from self._say(self._speech.hear("thinking", delta))

    def _on_message(self, message: Message) -> Iterator[Piece]:
        if message.role == "assistant":
            yield from self._in_step(message.turn)
            yield from self._say(self._speech.settle(message))
        elif message.steering is not None:
            yield _custom("steering", {"text": message.text})

    def _on_tool_call(self, call: ToolCall) -> Iterator[Piece]:
        yield from self._in_step(call.turn)
        named = {"toolCallId": self._named(call.call_id)}
        if call.front:
            self._fronts.append(named["toolCallId"])
        yield {"type": "TOOL_CALL_START", **named, "toolCallName": call.name}
        yield {"type": "TOOL_CALL_ARGS", **named, "delta": json.dumps(call.arguments)}
        yield {"type": "TOOL_CALL_END", **named}

    def _on_tool_output_delta(self, output: ToolOutput) -> Iterator[Piece]:
        said = {"toolCallId": self._named(output.call_id), "text": output.text}
        yield _custom("tool-output", said)

    def _on_tool_result(self, result: ToolResult) -> Iterator[Piece]:
        call = self._named(result.call_id)
        if call in self._fronts:
            self._fronts.remove(call)
        for image in result.images:
            # Beside the message of the result: a client sends all of its messages with each request.
            shown = {"toolCallId": call, **image.model_dump(mode="json")}
            yield _custom("tool-picture", shown)
        yield {
            "type": "TOOL_CALL_RESULT",
            "messageId": f"result-{call}",
            "toolCallId": call,
            "content": result.output,
            "role": "tool",
        }

    def _on_approval_requested(self, asked: ApprovalRequested) -> Iterator[Piece]:
        self._wait_for(asked)
        yield _custom("approval-requested", asked.model_dump(mode="json"))

    def _wait_for(self, asked: ApprovalRequested) -> None:
        call = self._named(asked.call_id)
        self._waiting[asked.call_id] = {
            "id": call,
            "reason": "approval",
            "message": f"{asked.name} is to be allowed",
            "toolCallId": call,
            "responseSchema": _ANSWER,
        }

    def _on_approval_resolved(self, resolved: ApprovalResolved) -> Iterator[Piece]:
        self._waiting.pop(resolved.call_id, None)
        yield _custom("approval-resolved", resolved.model_dump(mode="json"))

    def _on_usage(self, usage: TurnUsage) -> Iterator[Piece]:
        yield _custom("usage", usage.model_dump(mode="json"))

    def _on_compaction(self, compaction: Compaction) -> Iterator[Piece]:
        yield _custom("compaction", compaction.model_dump(mode="json"))

    def _on_error(self, trouble: Trouble) -> Iterator[Piece]:
        yield _custom("error", trouble.model_dump(mode="json"))

    def _on_done(self, done: Done) -> Iterator[Piece]:
        yield from self._close()
        if done.status == "failed":
            error = done.error
            said = ("the run failed", "failed") if error is None else (error.message, error.code)
            message, code = said
            usage = [_tokens(done.usage)]
            yield {"type": "RUN_ERROR", "message": message, "code": code, "usage": usage}
            return
        result: Piece = {"status": done.status, "output": done.output}
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

    def _step_begins(self, turn: int) -> Piece:
        return {"type": "STEP_STARTED", "stepName": f"turn {turn}"}

    def _step_ends(self, turn: int) -> Piece:
        return {"type": "STEP_FINISHED", "stepName": f"turn {turn}"}

    def _part(self, change: Change) -> Iterator[Piece]:
        named = {"messageId": f"{self.run_id}-{change.id}"}
        yield from _spoken(change, named) if change.kind == "text" else _thought(change, named)


def _spoken(change: Change, named: Piece) -> Iterator[Piece]:
    if isinstance(change, Opened):
        yield {"type": "TEXT_MESSAGE_START", **named, "role": "assistant"}
    elif isinstance(change, Closed):
        yield {"type": "TEXT_MESSAGE_END", **named}
    else:
        yield {"type": "TEXT_MESSAGE_CONTENT", **named, "delta": change.text}


def _thought(change: Change, named: Piece) -> Iterator[Piece]:
    if isinstance(change, Opened):
        yield {"type": "REASONING_START", **named}
        yield {"type": "REASONING_MESSAGE_START", **named, "role": "reasoning"}
    elif isinstance(change, Closed):
        yield {"type": "REASONING_MESSAGE_END", **named}
        yield {"type": "REASONING_END", **named}
    else:
        yield {"type": "REASONING_MESSAGE_CONTENT", **named, "delta": change.text}


def _custom(name: str, value: Any) -> Piece:
    return {"type": "CUSTOM", "name": name, "value": value}


def _tokens(usage: RunUsage) -> Piece:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }
