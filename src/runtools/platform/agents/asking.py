"""One turn's question to the model: tried again where that may help, its answer appended as a whole."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
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
    is_cut,
    text_of,
    thinking_of,
    tidy,
    wire_of,
)
from runtools.platform.agents.held import PREVIEW, Held, new_event
from runtools.platform.agents.persona import REMINDER, system_prompt
from runtools.platform.agents.points import reach
from runtools.platform.agents.question import Question
from runtools.platform.agents.trouble import REJECTED, Empty, Trouble, understood
from runtools.platform.agents.trying import again, spent, with_spent
from runtools.platform.core.ports.worker import NewEvent
from runtools.platform.core.runs import OUTPUT_TOOL
from runtools.sdk.shapes.runs import Delta, Message, RunError, RunUsage, ToolCall

log = logging.getLogger(__name__)

MOST_SILENT = 3
"""Answers in a row without the result that was asked for."""


async def ask(run: Held) -> None:
    """Ask the model, and append its answer; what cannot be mended ends the run as failed.

    Where what was tried has used up a limit, it is asked no further, and the next step ends the run.
    """
    turn = run.book.turn + 1
    tries = 0
    while True:
        tries += 1
        question = await _taken_up(run)
        if question is None:
            if run.limit is not None:
                return
            question = _asked(run, turn)
        run.known, run.stream = question.upto, question.stream
        question.stream.speak()
        came = await run.reins.hold(question.coming)
        run.stream = None
        if isinstance(came, ModelResponse):
            reach("worker.answered")
            await _answered(run, turn, question, came)
            return
        took = spent(run, question.stream.response, turn)
        if came.then == "shorten" and run.book.compacted != turn:
            if took:
                await run.append(took)
            if not await compacting.compact(run, turn):
                return
            continue
        if came.error.code == REJECTED and run.history.hide_pictures():
            # It may be for a picture, which no later request of the thread would get past either.
            came = replace(came, then="again", after=0.0)
        elif came.error.code == REJECTED and run.toolbox.leave_out(
            came.error.message, all_of_them=turn == run.first
        ):
            # Or for a tool of a server of the agent's: what is left is offered without it. Nobody keeps
            # which those were: the next lease offers all again, and finds it out anew.
            tools = run.toolbox.definitions
            run.asked = replace(
                run.asked, parameters=replace(run.asked.parameters, function_tools=tools)
            )
            came, tries = replace(came, then="again", after=0.0), 1
        if not await again(run, turn, tries, came, took):
            end = run.done("failed", error=came.error, usage=with_spent(run, took))
            await run.append([*took, end])
            return


def ask_ahead(run: Held) -> None:
    """Ask while the results of the last calls are on their way into the log, if that is what comes next.

    Nobody is told of the answer and nothing is made of it before they stand there (`_taken_up`).
    """
    book, calls = run.book, run.book.open
    if any(call.call_id not in run.results for call in calls):
        return
    if run.reins.why or book.is_interrupted or run.limit or compacting.is_full(run):
        return
    for call in calls:
        run.history.expect(run.results[call.call_id].data)
    run.ahead = _asked(run, book.turn + 1, more=len(calls))


async def given_up(run: Held) -> list[NewEvent]:
    """Ask no further what nobody will hear the answer of; what it took: that is paid for all the same."""
    ahead = await run.drop_ahead()
    stream, run.stream = run.stream if ahead is None else ahead.stream, None
    return [] if stream is None else spent(run, stream.response, run.book.turn + 1)


async def _taken_up(run: Held) -> Question | None:
    """What was asked ahead, where the log is what it is about; where it is not, that is given up."""
    if run.ahead is not None and run.ahead.upto == run.book.last:
        question, run.ahead = run.ahead, None
        return question
    if took := await given_up(run):
        await run.append(took)
    return None


def _asked(run: Held, turn: int, more: int = 0) -> Question:
    """The turn's question, which is asked from now on.

    Args:
        more: how many events follow those that are known; it is about these, too.
    """
    reminder = REMINDER if run.is_owed_a_result else None
    stream = _stream(run, turn)
    coming = asyncio.create_task(_came(run, stream, _messages(run, reminder)))
    return Question(run.book.last + more, reminder, stream, coming)


async def _came(run: Held, stream: Stream, messages: list[Any]) -> ModelResponse | Trouble:
    await asyncio.sleep(0)  # what is about to be appended is sent first
    return await spans.asked(run, stream, _answer(run, stream, messages))


async def _answer(run: Held, stream: Stream, messages: list[Any]) -> ModelResponse | Trouble:
    try:
        response = await stream.run(messages)
        if response.finish_reason == "error":
            raise Cut
        if not (text_of(response).strip() or calls_of(response) or is_cut(response)):
            raise ContentFilterError("it said nothing") if _is_refusal(response) else Empty
    except Exception as failure:  # noqa: BLE001 - each provider's client has failures of its own
        log.info("run %s: asking %s: %r", run.id, run.given.run.model, type(failure))
        return understood(failure, run.given.model)
    return response


def _stream(run: Held, turn: int) -> Stream:
    run.count_try(turn)
    attempt = (run.lease - 1) * PREVIEW + run.tries

    said = Counter[Kind]()

    def told(kind: Kind, text: str) -> None:
        delta = Delta(text=text, turn=turn, attempt=attempt, offset=said[kind])
        said[kind] += len(text)
        run.means.link.delta(run.id, run.lease, kind, delta.model_dump())

    return Stream(run.asked, told)


def _messages(run: Held, reminder: str | None) -> list[Any]:
    structured = run.given.output_schema is not None
    system = system_prompt(
        run.given.agent.system_prompt,
        run.toolbox.missing,
        [(one.description, one.value) for one in run.given.brought.context],
        structured=structured,
    )
    return run.history.shown(system, reminder=reminder)


async def _answered(run: Held, turn: int, question: Question, response: ModelResponse) -> None:
    response = tidy(response, run.book.call_ids, turn)
    calls, text = calls_of(response), text_of(response)
    wire = {"seen": question.upto, "response": wire_of(response)}
    if question.reminder is not None:
        wire["reminder"] = question.reminder
    said = Message(role="assistant", text=text, thinking=thinking_of(response), turn=turn)
    events = [new_event(f"t{turn}:message", "message", said, wire)]
    for index, call in enumerate(calls):
        given = arguments(call)
        wanted = ToolCall(
            call_id=call.tool_call_id,
            name=call.tool_name,
            arguments=given,
            turn=turn,
            front=run.toolbox.is_fronts(call.tool_name, given),
        )
        events.append(new_event(f"t{turn}:call:{index}", "tool-call", wanted))
    events += spent(run, response, turn, "answer")
    done = _end_of(run, turn, question.upto, response, with_spent(run, events))
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
    if is_cut(response):
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
