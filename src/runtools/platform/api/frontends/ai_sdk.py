"""A run's events as chunks of the AI SDK's UI message stream, version 1. Pure.

Source: the chunk schema of the package `ai` (7.0), by which the tests check each kind of stream.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from runtools.platform.api.frontends.asked import call_name
from runtools.platform.api.frontends.speech import Change, Closed, Kind, Opened
from runtools.platform.api.frontends.telling import Piece, Teller
from runtools.sdk.shapes.runs import (
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


class Chunks(Teller):
    """The chunks of one stream.

    Args:
        message_id: of the message that the front end makes of it, or goes on with; default: the run's.
        calls: those that the message has already. Of others nothing can be told as of a call: a front end
            that knows none of that id gives the whole stream up.
    """

    def __init__(
        self, run_id: str, message_id: str | None = None, *, calls: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.run_id = run_id
        self._message_id = message_id or run_id
        self._calls = set(calls)
        self._fronts: set[str] = set()
        self._asked: set[str] = set()
        self._denied: set[str] = set()

    def begin(self) -> Iterator[Piece]:
        """What every stream begins with."""
        yield {"type": "start", "messageId": self._message_id}

    def recall(self, event: RunEvent) -> None:
        """What was asked before stands in a message that the front end has."""

    def pause(self) -> Iterator[Piece]:
        """The run waits for approvals, or for what the front end carries out: the message ends here."""
        yield from self._close()
        yield {"type": "finish", "finishReason": "tool-calls"}

    def _on_run_started(self, started: Started) -> Iterator[Piece]:
        about = {"runId": self.run_id, "threadId": started.thread_id}
        yield {"type": "message-metadata", "messageMetadata": about}

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
            yield {"type": "data-steering", "data": {"text": message.text}}

    def _on_tool_call(self, call: ToolCall) -> Iterator[Piece]:
        yield from self._in_step(call.turn)
        yield from self._announce(call)

    def _announce(self, call: ToolCall | ApprovalRequested) -> Iterator[Piece]:
        self._calls.add(call.call_id)
        named: Piece = {"toolCallId": call.call_id, "toolName": call.name}
        if isinstance(call, ToolCall) and call.front:
            self._fronts.add(call.call_id)  # it knows its own tools, and nobody else's
        else:
            named["dynamic"] = True
        yield {"type": "tool-input-start", **named}
        if call.call_id in self._carried_out:
            # What is available is carried out, by whoever has not: a page that was loaded anew.
            said = json.dumps(call.arguments, ensure_ascii=False)
            yield {
                "type": "tool-input-delta",
                "toolCallId": call.call_id,
                "inputTextDelta": said,
            }
        else:
            yield {"type": "tool-input-available", **named, "input": call.arguments}

    def _on_tool_output_delta(self, output: ToolOutput) -> Iterator[Piece]:
        said = {"toolCallId": output.call_id, "text": output.text}
        yield {"type": "data-tool-output", "data": said, "transient": True}

    def _on_tool_result(self, result: ToolResult) -> Iterator[Piece]:
        for image in result.images:
            # It is not kept in the message: a chat sends all of its messages with each request.
            url = f"data:{image.media_type};base64,{image.data}"
            shown = {"toolCallId": result.call_id, "mediaType": image.media_type, "url": url}
            yield {"type": "data-tool-picture", "data": shown, "transient": True}
        named: Piece = {"toolCallId": result.call_id}
        if result.call_id not in self._fronts:
            named["dynamic"] = True
        if result.call_id in self._denied:
            return  # it was said already, and this is what the model was told
        if result.call_id not in self._calls:
            said = {"toolName": result.name, "output": result.output, "failed": result.failed}
            yield {"type": "data-tool-result", "data": {"toolCallId": result.call_id, **said}}
        elif result.failed:
            yield {"type": "tool-output-error", **named, "errorText": result.output}
        else:
            yield {"type": "tool-output-available", **named, "output": result.output}

    def _on_approval_requested(self, asked: ApprovalRequested) -> Iterator[Piece]:
        if asked.call_id not in self._calls:
            yield from self._in_step(asked.turn)
            yield from self._announce(asked)
        self._asked.add(asked.call_id)
        named = call_name(self.run_id, asked.call_id)
        yield {"type": "tool-approval-request", "approvalId": named, "toolCallId": asked.call_id}

    def _on_approval_resolved(self, resolved: ApprovalResolved) -> Iterator[Piece]:
        if resolved.decision == "deny" and resolved.call_id in self._calls:
            self._denied.add(resolved.call_id)
            yield {"type": "tool-output-denied", "toolCallId": resolved.call_id}
        elif resolved.call_id in self._asked:
            named = call_name(self.run_id, resolved.call_id)
            yield {"type": "tool-approval-response", "approvalId": named, "approved": True}

    def _on_usage(self, usage: TurnUsage) -> Iterator[Piece]:
        total = usage.total.model_dump(mode="json")
        yield {"type": "message-metadata", "messageMetadata": {"usage": total}}

    def _on_compaction(self, compaction: Compaction) -> Iterator[Piece]:
        yield {"type": "data-compaction", "data": compaction.model_dump(mode="json")}

    def _on_error(self, trouble: Trouble) -> Iterator[Piece]:
        said = {"code": trouble.code, "message": trouble.message}
        yield {"type": "data-error", "data": said, "transient": True}

    def _on_done(self, done: Done) -> Iterator[Piece]:
        yield from self._close()
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

    def _step_begins(self, turn: int) -> Piece:
        return {"type": "start-step"}

    def _step_ends(self, turn: int) -> Piece:
        return {"type": "finish-step"}

    def _part(self, change: Change) -> Iterator[Piece]:
        word = _WORDS[change.kind]
        if isinstance(change, Opened):
            yield {"type": f"{word}-start", "id": change.id}
        elif isinstance(change, Closed):
            yield {"type": f"{word}-end", "id": change.id}
        else:
            yield {"type": f"{word}-delta", "id": change.id, "delta": change.text}
