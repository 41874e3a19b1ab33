"""What users do with durable processes, on its way to the host.

Starting one, reading its output and everything sent to it wakes a paused sandbox (the host does) and waits
for one still creating (here). Waiting and following do neither: they go on when the sandbox does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from runtools.errors import InvalidRequest, SandboxPaused
from runtools.platform.api.callers.door import BELIEVED_SECONDS
from runtools.platform.api.calls import Call
from runtools.platform.api.processes import feeds
from runtools.platform.api.processes.feeds import Part
from runtools.platform.api.sandboxes import inside, rules
from runtools.platform.api.sandboxes.load import sleeps
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.core import histories
from runtools.platform.core.ports.host import Host
from runtools.sdk.shapes.processes import (
    OutputEnd,
    OutputPiece,
    OutputSpan,
    Process,
    ProcessRequest,
    Stream,
)


async def start(call: Call, ref: str, request: ProcessRequest) -> Process:
    """Start one; without an id of the caller's it is named by the act."""
    rules.check_command(request)
    host, sandbox_id = await inside.enter(call, ref)
    if request.process_id is None:
        named = f"prc_{call.op.removeprefix('opn_')}"
        request = request.model_copy(update={"process_id": named})
    return await host.start_process(sandbox_id, request)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader begins in a stream of a process.

    Attributes:
        start: the first offset.
        history: of which it is.
        process: how it stands; None in a paused sandbox that could not say so before. Its reader begins
            all the same, and is told when the sandbox goes on.
    """

    host: Host
    record: Record
    process_id: str
    start: int
    history: str
    process: Process | None


async def begin(
    call: Call, ref: str, process_id: str, stream: Stream, start: int, history: str | None
) -> Place:
    """Where a reader that asks for an offset begins. Nothing is woken.

    Raises:
        HistoryChanged: the offset is one of another history.
        InvalidRequest: it lies beyond the end.
    """
    host, record = await inside.beside(call, ref)
    process_id = rules.check_process_id(process_id)
    try:
        process = await host.wait_process(record.id, process_id, 0)
    except SandboxPaused as unknown:
        now = str(unknown.details.get("history", history or ""))
        if history and history != now:
            raise histories.changed(record.id, now) from None
        return Place(host, record, process_id, start, now, None)
    start = _first(record, process, stream, start, history)
    return Place(host, record, process_id, start, process.history, process)


async def read(
    call: Call,
    ref: str,
    process_id: str,
    stream: Stream,
    start: int,
    limit: int,
    history: str | None,
) -> OutputPiece:
    """What is there of its output; one that sleeps is woken for bytes alone, for they lie inside."""
    process_id = rules.check_process_id(process_id)
    record = await inside.living(call, ref)
    host = call.platform.hosts.port(record.host_id)
    if sleeps(record):
        try:
            span: OutputSpan = getattr(await host.wait_process(record.id, process_id, 0), stream)
            sought = start < span.end
        except SandboxPaused:  # nobody knows what there is
            sought = True
        if sought:
            host, _ = await inside.enter(call, ref)
    return await host.read_output(record.id, process_id, stream, start, limit, history)


def _first(
    record: Record, process: Process, stream: Stream, start: int, history: str | None
) -> int:
    """The offset asked for, or that of the oldest byte that is kept.

    Of a paused sandbox is known how its processes stood a moment before it stood still: a reader may have
    more of their output, and is not refused.

    Raises:
        HistoryChanged: the offset is one of another history.
        InvalidRequest: it lies beyond the end.
    """
    if history and history != process.history:
        raise histories.changed(record.id, process.history)
    span: OutputSpan = getattr(process, stream)
    if start > span.end and not sleeps(record):
        raise InvalidRequest(
            f"offset: {start} lies beyond the end of the {stream}, {span.end}",
            details={
                "fields": [{"field": "offset", "problem": "beyond the end", "type": "range"}],
                "end": span.end,
            },
        )
    return max(start, span.kept_from)


async def follow(
    call: Call, place: Place, stream: Stream, start: int
) -> AsyncGenerator[list[Part] | OutputEnd, None]:
    """Its output as it comes, as long as the caller may; no parts where nothing came for a second.

    It ends with `HistoryChanged` when its sandbox goes back in time: what comes then is another stream.
    """
    sandbox, process_id, history = place.record.id, place.process_id, place.history
    named = feeds.Stream(sandbox, history, process_id, stream)
    follow = call.platform.feeds.follow(
        named,
        start,
        lambda at: place.host.follow_output(sandbox, process_id, stream, at, history),
        BELIEVED_SECONDS,
    )
    async with aclosing(follow) as items:
        async for item in items:
            if not await call.platform.door.still_good(call.who):
                return
            yield item
