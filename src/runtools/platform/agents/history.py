"""From the log to what a model is shown: the conversation in the form that it must be given back in. Pure.

A message of a person that came while the model was answering stands after that answer and its results:
each answer says (`wire.seen`) up to where the model knew the log. An answer is given back as the provider
gave it, so that signatures of thinking hold. No call is ever left without a result.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)

from runtools.platform.core.ports.worker import Logged
from runtools.sdk import pictures

RESPONSE: TypeAdapter[ModelResponse] = TypeAdapter(ModelResponse)

LEFT_OPEN = "this call was not carried out: the run had ended"
GO_ON = "Go on."
_SUMMARY = "The conversation so far was too long and is summed up here:\n\n{summary}"
_LAST = "\n\nThe last thing that was asked, word for word:\n\n{request}"
_UNSEEN = "[a picture ({media_type}) was here; this model cannot see pictures]"
_UNFIT = "[a picture was here that cannot be shown: it {wrong}]"
_REFUSED = "[a picture was here; the model's provider refused the request with it]"


class History:
    """Takes up the logs of a thread's runs in order, and gives what the model is shown.

    Args:
        sees: whether the model can see pictures.
    """

    def __init__(self, *, sees: bool) -> None:
        self._sees = sees
        self._hides = False
        self._messages: list[ModelMessage] = []
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._open: dict[str, str] = {}
        self._returns: dict[str, dict[str, Any]] = {}

    def shown(self, system: str, *, reminder: str | None = None) -> list[ModelMessage]:
        """The conversation, ending with what the model is to answer.

        Args:
            system: who the model is to be.
            reminder: said at the end, where it has answered and is asked again.
        """
        extra: list[UserContent] = [] if reminder is None else [reminder]
        request = self._request(self._waiting, extra)
        if request is None:
            request = ModelRequest(parts=[UserPromptPart(content=GO_ON)])
        first = ModelRequest(parts=[SystemPromptPart(content=system)])
        return _joined([first, *self._messages, request] if system else [*self._messages, request])

    def expect(self, result: dict[str, Any]) -> None:
        """A result is on its way into the log; what stands there in the end counts."""
        self._returns[result["callId"]] = result

    def end(self) -> None:
        """A run is over, and the next begins: its numbers begin anew."""
        request = self._request(self._waiting, [])
        self._open, self._returns, self._waiting = {}, {}, []
        if request is not None:
            self._messages.append(request)

    def hide_pictures(self) -> bool:
        """Show none from here on, for the provider refuses them; False: none was shown."""
        shows = any(_has_picture(message) for message in self.shown(""))
        self._hides = True
        self._messages = [_without_pictures(message) for message in self._messages]
        return shows

    def take(self, events: Iterable[Logged]) -> None:
        """Take up more of a run's log."""
        for event in events:
            wire = event.wire if isinstance(event.wire, dict) else {}
            match event.type:
                case "message" if event.data["role"] == "user":
                    self._waiting.append((event.seq or 0, event.data))
                case "message":
                    self._answer(wire, event.data)
                case "tool-call":
                    self._open[event.data["callId"]] = event.data["name"]
                case "tool-result" if event.data["callId"] in self._open:
                    self._returns[event.data["callId"]] = event.data
                case "compaction":
                    self._compact(wire, event.data)
                case _:
                    pass

    def _answer(self, wire: dict[str, Any], data: dict[str, Any]) -> None:
        # What was said before the run has no turn: it answers all that stands before it.
        seen = int(wire["seen"]) if "seen" in wire else sys.maxsize
        known = [one for one in self._waiting if one[0] <= seen]
        self._waiting = [one for one in self._waiting if one[0] > seen]
        reminder = wire.get("reminder")
        request = self._request(known, [] if reminder is None else [str(reminder)])
        self._open, self._returns = {}, {}
        if request is not None:
            self._messages.append(request)
        # What was said before the run, by whoever, has no form of a provider's.
        response = RESPONSE.validate_python(wire.get("response") or plain_response(data["text"]))
        if any(isinstance(part, ToolCallPart) or _says(part) for part in response.parts):
            self._messages.append(response)  # thoughts alone, cut off, no provider takes back

    def _compact(self, wire: dict[str, Any], data: dict[str, Any]) -> None:
        seen = int(wire.get("seen") or 0)
        text = _SUMMARY.format(summary=data["summary"])
        if wire.get("request"):
            text += _LAST.format(request=wire["request"])
        self._messages = [ModelRequest(parts=[UserPromptPart(content=text)])]
        self._open, self._returns = {}, {}
        self._waiting = [one for one in self._waiting if one[0] > seen]

    def _request(
        self, said: Sequence[tuple[int, dict[str, Any]]], extra: Sequence[UserContent]
    ) -> ModelRequest | None:
        """What stands between two answers: results in the order of their calls, then what was said."""
        parts: list[ModelRequestPart] = []
        pictures: list[UserContent] = []
        for call_id, name in self._open.items():
            result = self._returns.get(call_id)
            output = LEFT_OPEN if result is None else result["output"]
            parts.append(ToolReturnPart(tool_name=name, content=output, tool_call_id=call_id))
            shown = self._pictures(result.get("images") or []) if result else []
            if shown:
                pictures += [f"What {name} ({call_id}) gave back:", *shown]
        if pictures:
            parts.append(UserPromptPart(content=pictures))
        for _, data in said:
            content: list[UserContent] = [data["text"], *self._pictures(data.get("images") or [])]
            parts.append(UserPromptPart(content=content if len(content) > 1 else data["text"]))
        parts += [UserPromptPart(content=[one]) for one in extra]
        return ModelRequest(parts=parts) if parts else None

    def _pictures(self, images: Iterable[dict[str, Any]]) -> list[UserContent]:
        if not self._sees:
            return [_UNSEEN.format(media_type=image["mediaType"]) for image in images]
        return [_REFUSED if self._hides else _picture(image["data"]) for image in images]


def _picture(text: str) -> UserContent:
    """A picture; what is none, or was taken for one before that was looked at, is told of in words."""
    data = base64.b64decode(text)
    if (wrong := pictures.fault(data)) is not None:
        return _UNFIT.format(wrong=wrong)
    return BinaryContent(data=data, media_type=str(pictures.kind_of(data)))


def _has_picture(message: ModelMessage) -> bool:
    return any(
        isinstance(one, BinaryContent)
        for part in message.parts
        if isinstance(part, UserPromptPart)
        for one in part.content
    )


def _without_pictures(message: ModelMessage) -> ModelMessage:
    if not isinstance(message, ModelRequest) or not _has_picture(message):
        return message
    return ModelRequest(parts=[_in_words(part) for part in message.parts])


def _in_words(part: ModelRequestPart) -> ModelRequestPart:
    if not isinstance(part, UserPromptPart) or isinstance(part.content, str):
        return part
    said = [_REFUSED if isinstance(one, BinaryContent) else one for one in part.content]
    return UserPromptPart(content=said)


def _says(part: ModelResponsePart) -> bool:
    return isinstance(part, TextPart) and bool(part.content.strip())


def plain_response(text: str) -> dict[str, Any]:
    """An answer that is text and nothing else, in the form that is kept."""
    return {"kind": "response", "parts": [{"part_kind": "text", "content": text}]}


def _joined(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Requests that follow each other as one: providers want turns to alternate."""
    joined: list[ModelMessage] = []
    for message in messages:
        before = joined[-1] if joined else None
        if isinstance(message, ModelRequest) and isinstance(before, ModelRequest):
            joined[-1] = ModelRequest(parts=[*before.parts, *message.parts])
        else:
            joined.append(message)
    return joined
