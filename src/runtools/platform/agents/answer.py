"""Asking a model once: its answer as it streams in, and whole at its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from runtools.platform.agents.history import RESPONSE

Kind = Literal["text-delta", "thinking"]
OnDelta = Callable[[Kind, str], None]

INVALID = "invalid_arguments"
"""The one argument of a call whose arguments were no JSON object: what stood there instead."""
CUT_OFF = "cut_off"
"""Stands beside `INVALID` where the answer was as long as it might be before the arguments were whole."""
_SHOWN = 2000
MOST_BYTES = 4 * 1024 * 1024
"""Of what an answer says, thinks and gives to calls; no model that is known says a tenth of it."""
MOST_CALLS = 128
_LONGEST_SECONDS = 3600.0


class Cut(Exception):
    """The stream ended before the answer did."""


class TooMuch(Exception):
    """The answer is more than a run can keep."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model is asked with, the conversation aside."""

    model: Model
    settings: ModelSettings
    parameters: ModelRequestParameters
    says_finish: bool


class Stream:
    """One request: what has come of its answer so far is here also after it broke off.

    Args:
        on_delta: told what it says, piece by piece, once it may `speak`; None: nobody is, and nothing
            counts as said.
    """

    def __init__(self, asked: Asked, on_delta: OnDelta | None) -> None:
        self._asked = asked
        self._on_delta = on_delta
        self._kept: list[tuple[Kind, str]] | None = []  # until it may speak
        self._text: list[str] = []
        self._has_thought = self._thinks_anew = False
        self._bytes = 0
        self.response: ModelResponse | None = None

    @property
    def text(self) -> str:
        """What it has said so far."""
        return "".join(self._text)

    def speak(self) -> None:
        """Say what has come, and from now on what comes."""
        kept, self._kept = self._kept or [], None
        for kind, text in kept:
            self._say(kind, text)

    async def run(self, messages: list[ModelMessage]) -> ModelResponse:
        """Ask, and hand on what comes.

        Raises:
            Cut: the stream ended too early.
            TooMuch: it says more than it may.
            TimeoutError: it went on for an hour.
            pydantic_ai.exceptions.AgentRunError: the provider refused or failed.
        """
        asked = self._asked
        async with (
            asyncio.timeout(_LONGEST_SECONDS),
            asked.model.request_stream(messages, asked.settings, asked.parameters) as streamed,
        ):
            try:
                async for event in streamed:
                    self._take(event)
            finally:
                self.response = streamed.get()
        response = self.response
        unfinished = asked.says_finish and not _says_end(response)
        if response.state != "complete" or unfinished:
            raise Cut
        if len(calls_of(response)) > MOST_CALLS:
            raise TooMuch(f"the model made more than {MOST_CALLS} calls in one answer")
        return response

    def _take(self, event: object) -> None:
        self._bytes += _size(event)
        if self._bytes > MOST_BYTES:
            raise TooMuch(f"the model said more than {MOST_BYTES} bytes in one answer")
        match event:
            case PartStartEvent(part=TextPart(content=text)) if text:
                self._say("text-delta", text)
            case PartDeltaEvent(delta=TextPartDelta(content_delta=text)) if text:
                self._say("text-delta", text)
            case PartStartEvent(part=ThinkingPart(content=text)):
                self._thinks_anew = self._has_thought
                self._think(text)
            case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text)) if text:
                self._think(text)
            case _:
                pass

    def _think(self, text: str) -> None:
        """Say a thought; one after another begins a line, as in `thinking_of`."""
        if text:
            self._say("thinking", f"\n{text}" if self._thinks_anew else text)
            self._has_thought, self._thinks_anew = True, False

    def _say(self, kind: Kind, text: str) -> None:
        if self._on_delta is None:
            return
        if self._kept is not None:
            self._kept.append((kind, text))
            return
        text = whole_text(text)
        if kind == "text-delta":
            self._text.append(text)
        self._on_delta(kind, text)


def _says_end(response: ModelResponse) -> bool:
    """Whether the provider has said that this is all, be it by a word that is new to us."""
    said = (response.provider_details or {}).get("finish_reason")
    return response.finish_reason is not None or bool(said)


def _size(event: object) -> int:
    """About how much of the answer a piece of it is."""
    match event:
        case PartStartEvent(part=TextPart(content=text)):
            return _bytes(text)
        case PartStartEvent(part=ThinkingPart(content=text, signature=signed)):
            return _bytes(text) + _bytes(signed)
        case PartStartEvent(part=ToolCallPart(tool_name=name, args=args)):
            return _bytes(name) + _bytes(args)
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return _bytes(text)
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text, signature_delta=signed)):
            return _bytes(text) + _bytes(signed)
        case PartDeltaEvent(delta=ToolCallPartDelta(tool_name_delta=name, args_delta=args)):
            return _bytes(name) + _bytes(args)
        case _:
            return 0


def _bytes(said: object) -> int:
    if said is None:
        return 0
    text = said if isinstance(said, str) else json.dumps(said)
    return len(text.encode("utf-8", "surrogatepass"))


def tidy(response: ModelResponse, taken: set[str], turn: int) -> ModelResponse:
    """The answer with calls that can be kept and given back: ids of their own, arguments that are objects.

    Args:
        taken: ids of calls that the run has already; some servers count from zero in each answer.
        turn: which answer it is.
    """
    parts: list[Any] = []
    ids = set(taken)
    for place, part in enumerate(response.parts):
        if isinstance(part, TextPart | ThinkingPart):
            text = whole_text(part.content)
            parts.append(part if text == part.content else replace(part, content=text))
            continue
        if not isinstance(part, ToolCallPart):
            parts.append(part)
            continue
        call_id = part.tool_call_id
        if not call_id or call_id in ids or len(call_id) > 128:
            call_id = f"call_{turn}_{place}"
        ids.add(call_id)
        whole: Any = part  # whatever kind of call it is, it takes arguments that are an object
        given = arguments(part)
        if (
            is_cut(response)
            and place == len(response.parts) - 1
            and (INVALID in given or not given)
        ):
            given = {INVALID: given.get(INVALID, ""), CUT_OFF: True}
        parts.append(replace(whole, tool_call_id=call_id, args=given))
    return replace(response, parts=parts)


def arguments(part: ToolCallPart) -> dict[str, Any]:
    """What a call is made with; what is no JSON object is shown as such."""
    given: Any = part.args
    if isinstance(given, dict):
        given = json.dumps(given)
    if isinstance(given, str):
        try:
            given = _whole(json.loads(given)) if given.strip() else {}
        except (ValueError, RecursionError):
            return {INVALID: whole_text(given[:_SHOWN])}
    if given is None:
        return {}
    return given if isinstance(given, dict) else {INVALID: str(given)[:_SHOWN]}


def whole_text(text: str) -> str:
    """Text without halves of characters, as a stream that is cut in the middle of one gives them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {whole_text(name): _whole(one) for name, one in value.items()}
    return value


def is_cut(response: ModelResponse) -> bool:
    """Whether it was as long as it might be; thoughts alone may have been."""
    return response.finish_reason == "length"


def calls_of(response: ModelResponse) -> list[ToolCallPart]:
    """What it wants done."""
    return [part for part in response.parts if isinstance(part, ToolCallPart)]


def text_of(response: ModelResponse) -> str:
    """What it says."""
    return "".join(part.content for part in response.parts if isinstance(part, TextPart))


def thinking_of(response: ModelResponse) -> str | None:
    """What it thought, where the provider tells."""
    thoughts = [part.content for part in response.parts if isinstance(part, ThinkingPart)]
    return "\n".join(filter(None, thoughts)) or None


def wire_of(response: ModelResponse) -> Any:
    """The form in which it is kept."""
    return RESPONSE.dump_python(response, mode="json")
