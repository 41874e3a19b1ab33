"""Carrying out what the model wants done: calls side by side, a result appended as each is over."""

from __future__ import annotations

import asyncio
import base64
import json

from runtools.platform.agents import spans
from runtools.platform.agents.asking import ask_ahead
from runtools.platform.agents.book import Call
from runtools.platform.agents.held import Held, ended, new_event, result_event
from runtools.platform.agents.points import reach
from runtools.platform.agents.tools.toolbox import broken
from runtools.platform.core.runs import OUTPUT_TOOL
from runtools.platform.kit import schemas
from runtools.sdk.shapes.runs import ApprovalRequested, ToolImage, ToolOutput
from runtools.workbench.tool import Result


async def carry_out(run: Held) -> bool:
    """Make the open calls; True: what is left waits for others, and the run is let go of."""
    running: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            run.changed.clear()
            for call in run.book.open:
                if call.call_id not in running and _may_begin(run, call):
                    running[call.call_id] = asyncio.create_task(_make(run, call))
            await _ask_people(run)
            if not running:
                if not run.book.open or await _judge(run):
                    return False
                if _is_waiting(run) and await _let_go(run):
                    return True
                continue
            await run.reins.hold(_next(run, running))
            for call_id in [one for one, task in running.items() if task.done()]:
                running.pop(call_id).result()
    finally:
        await ended(list(running.values()))


async def _next(run: Held, running: dict[str, asyncio.Task[None]]) -> None:
    changed = asyncio.create_task(run.changed.wait())
    try:
        await asyncio.wait({*running.values(), changed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        changed.cancel()


def _may_begin(run: Held, call: Call) -> bool:
    """Whether a call needs nobody's word, or has it."""
    if call.front or _is_output(run, call):
        return False  # it is not made here, or when all others are over
    return run.toolbox.permission(call.name) != "ask" or call.resolved is not None


def _is_output(run: Held, call: Call) -> bool:
    return call.name == OUTPUT_TOOL and run.given.output_schema is not None


async def _ask_people(run: Held) -> None:
    asked = [
        new_event(
            f"t{call.turn}:ask:{call.index}",
            "approval-requested",
            ApprovalRequested(
                call_id=call.call_id, name=call.name, arguments=call.arguments, turn=call.turn
            ),
        )
        for call in run.book.open
        if not call.asked
        and not call.front
        and not _is_output(run, call)
        and run.toolbox.permission(call.name) == "ask"
    ]
    if asked:
        await run.append(asked)


def _is_waiting(run: Held) -> bool:
    return any(call.front or (call.asked and call.resolved is None) for call in run.book.open)


async def _let_go(run: Held) -> bool:
    """Whether the run waits now; not where somebody has just spoken."""
    news = await run.append([], guarded=True, wait=True)
    run.waits = not news.events and not news.cancel
    if not run.waits:
        run.reins.check()
    return run.waits


async def _make(run: Held, call: Call) -> None:
    began, begun = run.means.clock.monotonic(), run.means.clock.now()
    result = await _result(run, call)
    spans.called(run, begun, call, result)
    reach("worker.call.acted")
    images = [
        ToolImage(media_type=one.media_type, data=base64.b64encode(one.data).decode())
        for one in result.images
    ]
    took = round((run.means.clock.monotonic() - began) * 1000)
    event = result_event(call, result.text, failed=result.failed, images=images, duration_ms=took)
    run.results[call.call_id] = event
    try:
        ask_ahead(run)
        await run.append([event])
    finally:
        del run.results[call.call_id]


async def _result(run: Held, call: Call) -> Result:
    if run.toolbox.permission(call.name) == "deny":
        return Result(f"{call.name} may not be used by this agent", failed=True)
    if call.resolved is not None and call.resolved.decision == "deny":
        why = f": {call.resolved.reason}" if call.resolved.reason else ""
        return Result(f"a person has refused this call{why}", failed=True)

    def told(text: str) -> None:
        output = ToolOutput(call_id=call.call_id, text=text, attempt=run.lease)
        run.means.link.delta(run.id, run.lease, "tool-output-delta", output.model_dump(mode="json"))

    reach("worker.call.begun")
    result = await run.toolbox.call(call, told, begun=call.call_id in run.begun)
    if call.changed is None:
        return result
    word = f"[a person changed the arguments to {json.dumps(call.changed)}]\n"
    return Result(word + result.text, result.failed, result.images)


async def _judge(run: Held) -> bool:
    """Take the result that the run was to end with; True: there was one, good or not."""
    given = [call for call in run.book.open if _is_output(run, call)]
    if len(given) < len(run.book.open) or not given:
        return False
    schema = run.given.output_schema or {}
    events = []
    for place, call in enumerate(given):
        if why := broken(call.arguments):
            events.append(result_event(call, why, failed=True))
            continue  # what stands in their place fits a schema that asks for nothing
        faults = await schemas.faults(schema, call.arguments, "outputSchema")
        if faults:
            events.append(result_event(call, f"it does not fit: {faults}", failed=True))
            continue
        events.append(result_event(call, "taken"))
        events += [
            result_event(other, "another result was taken", failed=True)
            for other in given[place + 1 :]
        ]
        output = json.dumps(call.arguments, ensure_ascii=False)
        done = run.done("completed", output=output, structured=call.arguments)
        await run.append([*events, done], guarded=True)
        break
    if run.book.open:
        await run.append(events)
    return True
