"""A run's events as chunks of the AI SDK's UI message stream, version 1. Pure.

Source: the chunk schema of the package `ai` (7.0), which checked what the tests hold this to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from runtools.platform.api.frontends.speech import Change, Closed, Kind, Opened, Speech
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.runs import (
    PAYLOADS,
    ApprovalRequested,
    ApprovalResolved,
    Compaction,
    Delta,
    Done,
    EndStatus,
    Message,
    RunEvent,
    Started,
    ToolCall,
    ToolOutput,
    ToolResult,
    Trouble,
    TurnUsage,
)

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
END = "[DONE]"

_WORDS: dict[Kind, str] = {"text": "text", "thinking": "reasoning"}
_REASONS: dict[EndStatus, str] = {
    "completed": "stop",
    "failed": "error",
    "cancelled": "other",
    "limit_reached": "length",
}

Chunk = dict[str, Any]


@dataclass(slots=True)
class Chunks:
    """The chunks of one stream, from wherever in the log it begins."""

    run_id: str
    _speech: Speech = field(default_factory=Speech)
    _step: int | None = None
    _denied: set[str] = field(default_factory=set)

    def begin(self) -> Iterator[Chunk]:
        """What every stream begins with."""
        yield {"type": "start", "messageId": self.run_id}

    def of(self, event: RunEvent) -> Iterator[Chunk]:
        """What an event is for a front end; nothing, for some."""
        tell: Callable[[Shape], Iterator[Chunk]] = getattr(
            self, f"_on_{event.type.replace('-', '_')}"
        )
        yield from tell(PAYLOADS[event.type].model_validate(event.data))

    def pause(self) -> Iterator[Chunk]:
        """The run waits for approvals: the message ends here and goes on when they are given."""
        yield from map(_part, self._speech.close())
        yield from self._step_over()
        yield {"type": "finish", "finishReason": "tool-calls"}

    def _on_run_started(self, started: Started) -> Iterator[Chunk]:
        about = {"runId": self.run_id, "threadId": started.thread_id}
        yield {"type": "message-metadata", "messageMetadata": about}

    def _on_text_delta(self, delta: Delta) -> Iterator[Chunk]:
        yield from self._in_step(delta.turn)
        yield from map(_part, self._speech.hear("text", delta))

    def _on_thinking(self, delta: Delta) -> Iterator[Chunk]:
        yield from self._in_step(delta.turn)
        yield from map(_part, self._speech.hear("thinking", delta))

    def _on_message(self, message: Message) -> Iterator[Chunk]:
        if message.role == "assistant":
            yield from self._in_step(message.turn)
            yield from map(_part, self._speech.settle(message))
        elif message.steering is not None:
            yield {"type": "data-steering", "data": {"text": message.text}}

    def _on_tool_call(self, call: ToolCall) -> Iterator[Chunk]:
        yield from self._in_step(call.turn)
        named = {"toolCallId": call.call_id, "toolName": call.name, "dynamic": True}
        yield {"type": "tool-input-start", **named}
        yield {"type": "tool-input-available", **named, "input": call.arguments}

    def _on_tool_output_delta(self, output: ToolOutput) -> Iterator[Chunk]:
        said = {"toolCallId": output.call_id, "text": output.text}
        yield {"type": "data-tool-output", "data": said, "transient": True}

    def _on_tool_result(self, result: ToolResult) -> Iterator[Chunk]:
        if result.call_id in self._denied:
            return  # it was said already, and this is what the model was told
        named = {"toolCallId": result.call_id, "dynamic": True}
        if result.failed:
            yield {"type": "tool-output-error", **named, "errorText": result.output}
            return
        yield {"type": "tool-output-available", **named, "output": result.output}
        for image in result.images:
            url = f"data:{image.media_type};base64,{image.data}"
            yield {"type": "file", "url": url, "mediaType": image.media_type}

    def _on_approval_requested(self, asked: ApprovalRequested) -> Iterator[Chunk]:
        named = approval_id(self.run_id, asked.call_id)
        yield {"type": "tool-approval-request", "approvalId": named, "toolCallId": asked.call_id}

    def _on_approval_resolved(self, resolved: ApprovalResolved) -> Iterator[Chunk]:
        if resolved.decision == "deny":
            self._denied.add(resolved.call_id)
            yield {"type": "tool-output-denied", "toolCallId": resolved.call_id}

    def _on_usage(self, usage: TurnUsage) -> Iterator[Chunk]:
        total = usage.total.model_dump(mode="json")
        yield {"type": "message-metadata", "messageMetadata": {"usage": total}}

    def _on_compaction(self, compaction: Compaction) -> Iterator[Chunk]:
        yield {"type": "data-compaction", "data": compaction.model_dump(mode="json")}

    def _on_error(self, trouble: Trouble) -> Iterator[Chunk]:
        said = {"code": trouble.code, "message": trouble.message}
        yield {"type": "data-error", "data": said, "transient": True}

    def _on_done(self, done: Done) -> Iterator[Chunk]:
        yield from map(_part, self._speech.close())
        yield from self._step_over()
        if done.status == "cancelled":
            yield {"type": "abort", "reason": "the run was cancelled"}
            return
        if done.error is not None:
            yield {"type": "error", "errorText": done.error.message}
        about: dict[str, Any] = {"status": done.status}
        if done.structured is not None:
            about["structured"] = done.structured
        if done.limit is not None:
            about["limit"] = done.limit
        reason = _REASONS[done.status]
        yield {"type": "finish", "finishReason": reason, "messageMetadata": about}

    def _in_step(self, turn: int) -> Iterator[Chunk]:
        if self._step is not None and turn <= self._step:
            return
        yield from map(_part, self._speech.close())
        yield from self._step_over()
        self._step = turn
        yield {"type": "start-step"}

    def _step_over(self) -> Iterator[Chunk]:
        if self._step is not None:
            yield {"type": "finish-step"}


def approval_id(run_id: str, call_id: str) -> str:
    """The name of an approval, from which a front end's answer finds its run."""
    return f"{run_id}:{call_id}"


def _part(change: Change) -> Chunk:
    word = _WORDS[change.kind]
    if isinstance(change, Opened):
        return {"type": f"{word}-start", "id": change.id}
    if isinstance(change, Closed):
        return {"type": f"{word}-end", "id": change.id}
    return {"type": f"{word}-delta", "id": change.id, "delta": change.text}
