"""Making a conversation shorter: the model sums it up, an event says so, and the run goes on from there."""

from __future__ import annotations

from typing import Any, cast

from pydantic_ai.exceptions import ContentFilterError
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
from pydantic_ai.settings import ModelSettings

from runtools.platform.agents import spans
from runtools.platform.agents.answer import Asked, Cut, Stream, text_of
from runtools.platform.agents.extent import CHARACTERS_A_TOKEN
from runtools.platform.agents.held import Held, new_event
from runtools.platform.agents.persona import SUMMARIZE
from runtools.platform.agents.trouble import Empty, Trouble, understood
from runtools.platform.agents.trying import again, spent, with_spent
from runtools.platform.core.models import entry
from runtools.platform.core.ports.worker import ModelAccess
from runtools.sdk.shapes.runs import Compaction, RunError

FULL = 0.8
"""Of a model's window: what is more is made shorter before the next question."""
_MOST_KEPT_FREE = 0.5
"""Of a model's window, for its answer."""
_UNKNOWN_WINDOW = 32_000
_OF_EACH = 4000
_OF_REQUEST = 8000
_DEEPEST = ("xhigh", "max")
"""Thoughts that may take more tokens than the catalogue gives to a whole answer: Anthropic refuses that."""
_MOST_SHORTER = 4
"""Tries with half as much each."""


def window_of(run: Held) -> int | None:
    """Tokens that the model takes in, where that is known."""
    return run.given.model.context_window


def longest(access: ModelAccess, thinking: object) -> dict[str, Any]:
    """How long an answer may be where nobody has said so, and the provider would end it early.

    Args:
        thinking: how much the model is to think.
    """
    model = entry(access.provider, access.api_id)
    if model is None or model.max_output is None:
        return {}
    if model.thinking and thinking in _DEEPEST:
        return {}  # pydantic-ai asks for what it lets the model think, and an answer beyond that
    return {"max_tokens": model.max_output}


def is_full(run: Held) -> bool:
    """Whether the conversation should be made shorter before it is asked about again.

    So it should where it fills most of the window, and where the results that came since would not fit into
    it beside an answer as long as one may be: some providers refuse that, some servers cut it silently.
    Where a summary did not bring it below that, another would not, and the provider has the word.
    """
    window, extent = window_of(run), run.book.extent
    if window is None or not extent.tokens:
        return False
    most = run.asked.settings.get("max_tokens") or 0
    room = window - min(most, int(_MOST_KEPT_FREE * window))
    if extent.floor > min(FULL * window, room):
        return False
    coming = sum(len(one.data["output"]) for one in run.results.values())
    results = (extent.results + coming) // CHARACTERS_A_TOKEN
    return extent.tokens > FULL * window or extent.tokens + results > room


async def compact(run: Held, turn: int) -> bool:
    """Append a summary in place of all that was said; False: there is none.

    Then the run has ended, or has used up a limit, and the next step ends it.
    """
    messages, before = run.history.shown(""), run.book.extent.tokens
    most = int((window_of(run) or _UNKNOWN_WINDOW) * CHARACTERS_A_TOKEN * FULL / 2)
    # What is said from here on is in no summary: it stands after it. So does what has no answer yet, with
    # its pictures, unless it would fill the window itself.
    wire = {"seen": run.book.last, "request": _request(run.book.request)}
    if 0 < run.book.extent.unanswered <= most // CHARACTERS_A_TOKEN:
        wire = {"seen": run.book.seen, "request": ""}
    tries = 0
    while run.limit is None:
        tries += 1
        stream = _stream(run, turn)
        summed_up = _summed_up(run, stream, transcript(messages, most))
        came = await run.reins.hold(spans.asked(run, stream, summed_up))
        run.stream = None
        if isinstance(came, ModelResponse):
            summary = Compaction(turn=turn, tokens_before=before, summary=text_of(came))
            event = new_event(f"t{turn}:compaction", "compaction", summary, wire)
            await run.append([event, *spent(run, came, turn, "compaction")])
            return True
        took = spent(run, stream.response, turn)
        if came.then == "shorten" and tries < _MOST_SHORTER:
            most //= 2
            if took:
                await run.append(took)
        elif not await again(run, turn, tries, came, took):
            end = run.done("failed", error=_overflow(came), usage=with_spent(run, took))
            await run.append([*took, end])
            break
    return False


def _request(text: str) -> str:
    more = len(text) - _OF_REQUEST
    return text if more <= 0 else f"{text[:_OF_REQUEST]} [… {more} more characters]"


def _overflow(trouble: Trouble) -> RunError:
    return RunError(
        code="context_overflow",
        message="the conversation is too long for the model and could not be summed up: "
        + trouble.error.message,
        hint="begin a new thread, or use a model with a larger context window",
    )


def _stream(run: Held, turn: int) -> Stream:
    """A request whose words are for nobody to read."""
    run.count_try(turn)
    asked = run.asked
    # How long an answer may be is said of those that people read: a summary is whole, or none.
    # Nor does anything go on from this request: keeping it would cost and serve nobody.
    chosen = {
        name: value for name, value in asked.settings.items() if name not in ("max_tokens", "cache")
    }
    chosen |= longest(run.given.model, chosen.get("thinking"))
    settings = cast("ModelSettings", chosen)
    plain = Asked(asked.model, settings, ModelRequestParameters(), asked.says_finish)
    run.stream = stream = Stream(plain, None)
    return stream


async def _summed_up(run: Held, stream: Stream, told: str) -> ModelResponse | Trouble:
    question: list[ModelMessage] = [
        ModelRequest(parts=[SystemPromptPart(content=SUMMARIZE), UserPromptPart(content=told)])
    ]
    try:
        response = await stream.run(question)
        if response.finish_reason == "error":
            raise Cut
        if response.finish_reason == "content_filter":
            raise ContentFilterError("it said nothing, or not all")
        if response.finish_reason == "length":
            message = "the summary was cut off: it is as long as the model's answers may be"
            return Trouble("shorten", RunError(code="context_overflow", message=message))
        if not text_of(response).strip():
            raise Empty
    except Exception as failure:  # noqa: BLE001 - each provider's client has failures of its own
        return understood(failure, run.given.model)
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
