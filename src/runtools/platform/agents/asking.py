"""One turn's question to the model: tried again where that may help, its answer appended as a whole."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from pydantic_ai.exceptions import ContentFilterError
from pydantic_ai.messages import ModelResponse

from runtools.platform.agents import compacting, spans
from runtools.platform.agents.answer import (
    Cut,
    Kind,
    Stream,
    arguments,
    calls_of,
    text_of,
    thinking_of,
    tidy,
    wire_of,
)
from runtools.platform.agents.held import PREVIEW, Held, new_event
from runtools.platform.agents.persona import OUTPUT_TOOL, REMINDER, system_prompt
from runtools.platform.agents.points import reach
from runtools.platform.agents.trouble import REJECTED, Empty, Trouble, understood
from runtools.platform.agents.trying import again, spent, with_spent
from runtools.platform.core.ports.worker import NewEvent
from runtools.platform.kit.outbound import Refused
from runtools.sdk.shapes.runs import Delta, Message, RunError, RunUsage, ToolCall

log = logging.getLogger(__name__)

MOST_SILENT = 3
"""Answers in a row without the result that was asked for."""


async def ask(run: Held) -> None:
    """Ask the model, and append its answer; what cannot be mended ends the run as failed."""
    turn = run.book.turn + 1
    tries = 0
    while True:
        tries += 1
        run.known = seen = run.book.last
        reminder = REMINDER if run.is_owed_a_result else None
        stream = _stream(run, turn)
        begun = run.means.clock.now()
        came = await run.reins.hold(_came(run, stream, _messages(run, reminder)))
        spans.asked(run, begun, came)
        run.stream = None
        if isinstance(came, ModelResponse):
            reach("worker.answered")
            await _answered(run, turn, seen, reminder, came)
            return
        took = spent(run, stream.response, turn)
        if came.then == "shorten" and run.book.compacted != turn:
            if took:
                await run.append(took)
            if not await compacting.compact(run, turn):
                return
            continue
        if came.error.code == REJECTED and run.history.hide_pictures():
            # It may be for a picture, which no later request of the thread would get past either.
            came = replace(came, then="again", after=0.0)
        elif came.error.code == REJECTED and run.toolbox.leave_out(came.error.message):
            # Or for a tool of a server of the agent's: what is left is offered without it.
            tools = run.toolbox.definitions
            run.asked = replace(
                run.asked, parameters=replace(run.asked.parameters, function_tools=tools)
            )
            came, tries = replace(came, then="again", after=0.0), 1
        if not await again(run, turn, tries, came, took):
            end = run.done("failed", error=came.error, usage=with_spent(run, took))
            await run.append([*took, end])
            return


async def _came(run: Held, stream: Stream, messages: list[Any]) -> ModelResponse | Trouble:
    try:
        if run.given.model.base_url is not None:
            await run.means.outbound.check(run.given.model.base_url)
        response = await stream.run(messages)
        if response.finish_reason == "error":
            raise Cut
        if not (text_of(response).strip() or calls_of(response) or _is_cut(response)):
            raise ContentFilterError("it said nothing") if _is_refusal(response) else Empty
    except Refused as refused:
        hint = "the operator can allow it by the setting outbound_allow"
        error = RunError(code="endpoint_refused", message=str(refused), hint=hint)
        return Trouble("give_up", error)
    except Exception as failure:  # noqa: BLE001 - each provider's client has failures of its own
        log.info("run %s: asking %s: %r", run.id, run.given.run.model, type(failure))
        return understood(failure, run.given.model.api_key)
    return response


def _stream(run: Held, turn: int) -> Stream:
    run.count_try(turn)
    attempt = (run.lease - 1) * PREVIEW + run.tries

    def told(kind: Kind, text: str) -> None:
        delta = Delta(text=text, turn=turn, attempt=attempt)
        run.means.link.delta(run.id, run.lease, kind, delta.model_dump())

    run.stream = stream = Stream(run.asked, told)
    return stream


def _messages(run: Held, reminder: str | None) -> list[Any]:
    structured = run.given.output_schema is not None
    system = system_prompt(
        run.given.agent.system_prompt, run.toolbox.missing, structured=structured
    )
    return run.history.shown(system, reminder=reminder)


async def _answered(
    run: Held, turn: int, seen: int, reminder: str | None, response: ModelResponse
) -> None:
    response = tidy(response, run.book.call_ids, turn)
    calls, text = calls_of(response), text_of(response)
    wire = {"seen": seen, "response": wire_of(response)}
    if reminder is not None:
        wire["reminder"] = reminder
    said = Message(role="assistant", text=text, thinking=thinking_of(response), turn=turn)
    events = [new_event(f"t{turn}:message", "message", said, wire)]
    for index, call in enumerate(calls):
        wanted = ToolCall(
            call_id=call.tool_call_id, name=call.tool_name, arguments=arguments(call), turn=turn
        )
        events.append(new_event(f"t{turn}:call:{index}", "tool-call", wanted))
    events += spent(run, response, turn, "answer")
    done = _end_of(run, turn, seen, response, with_spent(run, events))
    if done is not None:
        await run.append([*events, done], guarded=True)
    if run.book.turn < turn:  # nothing ends here, or somebody spoke just now
        await run.append(events)


def _end_of(
    run: Held, turn: int, seen: int, response: ModelResponse, usage: RunUsage
) -> NewEvent | None:
    """`done`, where the answer ends the run."""
    if calls_of(response) or run.book.said > seen:
        return None
    text = text_of(response)
    ending: dict[str, Any] = {"output": text or None, "usage": usage, "iterations": turn}
    if _is_refusal(response):
        error = RunError(code="model_refused", message="the model's provider stopped the answer")
        return run.done("failed", error=error, **ending)
    if _is_cut(response):
        limit = "max_tokens: the answer was cut off; continue it, or allow longer answers"
        return run.done("limit_reached", limit=limit, **ending)
    if run.given.output_schema is None:
        return run.done("completed", **ending)
    if run.book.silent + 1 < MOST_SILENT:
        return None
    message = f"the model did not call {OUTPUT_TOOL} in {MOST_SILENT} answers"
    return run.done("failed", error=RunError(code="output_missing", message=message), **ending)


def _is_refusal(response: ModelResponse) -> bool:
    return response.finish_reason == "content_filter"


def _is_cut(response: ModelResponse) -> bool:
    """Whether it was as long as it might be; thoughts alone may have been."""
    return response.finish_reason == "length"
