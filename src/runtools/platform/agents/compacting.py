"""Making a conversation shorter: the model sums it up, an event says so, and the run goes on from there."""

from __future__ import annotations

from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters

from runtools.platform.agents.answer import Asked, Stream, text_of
from runtools.platform.agents.held import Held, new_event
from runtools.platform.agents.limits import add
from runtools.platform.agents.models.prices import usage_of
from runtools.platform.agents.persona import SUMMARIZE
from runtools.platform.agents.trouble import Trouble, understood
from runtools.platform.core.models import MODELS
from runtools.sdk.shapes.runs import Compaction, RunError, TurnUsage

FULL = 0.8
"""Of a model's window: what is more is made shorter before the next question."""
_CHARACTERS_A_TOKEN = 3
_UNKNOWN_WINDOW = 32_000
_OF_EACH = 4000
_OF_REQUEST = 8000


def window_of(run: Held) -> int | None:
    """Tokens that the model takes in, where that is known."""
    access = run.given.model
    for model in MODELS.values():
        if (model.provider, model.api_id) == (access.provider, access.api_id):
            return model.context_window
    return None


def is_full(run: Held) -> bool:
    """Whether the conversation should be made shorter before it is asked about again."""
    window = window_of(run)
    return window is not None and run.book.size > FULL * window


async def compact(run: Held, turn: int) -> bool:
    """Append a summary in place of all that was said; False: it could not be had, and the run has ended."""
    messages = run.history.shown("")
    window = window_of(run) or _UNKNOWN_WINDOW
    told = transcript(messages, int(window * _CHARACTERS_A_TOKEN * FULL / 2))
    question: list[ModelMessage] = [
        ModelRequest(parts=[SystemPromptPart(content=SUMMARIZE), UserPromptPart(content=told)])
    ]
    seen, before = run.book.last, run.book.size
    came = await run.reins.hold(_summed_up(run, question))
    if isinstance(came, Trouble):
        error = RunError(
            code="context_overflow",
            message="the conversation is too long for the model and could not be summed up: "
            + came.error.message,
            hint="begin a new thread, or use a model with a larger context window",
        )
        await run.append([run.done("failed", error=error)])
        return False
    one = usage_of(run.given.model, came.usage)
    usage = TurnUsage(**one.model_dump(), turn=turn, total=add(run.book.usage, one))
    summary = Compaction(turn=turn, tokens_before=before, summary=text_of(came))
    wire = {"seen": seen, "request": run.book.request[:_OF_REQUEST]}
    await run.append(
        [
            new_event(f"t{turn}:compaction", "compaction", summary, wire),
            new_event(f"t{turn}:usage:compaction", "usage", usage),
        ]
    )
    return True


async def _summed_up(run: Held, question: list[ModelMessage]) -> ModelResponse | Trouble:
    plain = Asked(
        run.asked.model, run.asked.settings, ModelRequestParameters(), run.asked.says_finish
    )
    stream = Stream(plain, lambda _kind, _text: None)
    try:
        response = await stream.run(question)
        if not text_of(response).strip():
            raise ValueError("the summary is empty")
    except Exception as failure:  # noqa: BLE001 - each provider's client has failures of its own
        return understood(failure, run.given.model.api_key)
    return response


def transcript(messages: list[ModelMessage], most: int) -> str:
    """A conversation as text, cut in the middle where it is longer than so many characters."""
    lines = [line for message in messages for part in message.parts for line in _line(part)]
    text = "\n\n".join(lines)
    if len(text) <= most:
        return text
    head = most // 4
    return f"{text[:head]}\n\n[… {len(text) - most} characters left out …]\n\n{text[head - most :]}"


def _line(part: Any) -> list[str]:
    match part:
        case UserPromptPart(content=str(content)):
            return [f"USER: {_short(content)}"]
        case UserPromptPart(content=content):
            return [
                f"USER: {_short(one) if isinstance(one, str) else '[picture]'}" for one in content
            ]
        case TextPart(content=content) if content.strip():
            return [f"ASSISTANT: {_short(content)}"]
        case ToolCallPart():
            return [f"ASSISTANT CALLS {part.tool_name}: {_short(part.args_as_json_str())}"]
        case ToolReturnPart():
            return [f"RESULT OF {part.tool_name}: {_short(part.model_response_str())}"]
        case _:
            return []


def _short(text: str) -> str:
    half = _OF_EACH // 2
    return text if len(text) <= _OF_EACH else f"{text[:half]} […] {text[-half:]}"
