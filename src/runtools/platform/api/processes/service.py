"""What users do with durable processes, on its way to the host.

Starting one, reading its output and everything sent to it wakes a paused sandbox (the host does) and waits
for one still creating (here). Waiting and following do neither: they go on when the sandbox does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from runtools.errors import InvalidRequest
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


async def look(call: Call, ref: str, process_id: str) -> tuple[Host, Record, Process]:
    """How a process stands, with its host and sandbox; nothing is woken."""
    host, record = await inside.beside(call, ref)
    process_id = rules.check_process_id(process_id)
    return host, record, await host.wait_process(record.id, process_id, 0)


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
        span: OutputSpan = getattr(await host.wait_process(record.id, process_id, 0), stream)
        if start < span.end:
            host, _ = await inside.enter(call, ref)
    return await host.read_output(record.id, process_id, stream, start, limit, history)


def first(record: Record, process: Process, stream: Stream, start: int, history: str | None) -> int:
    """Where a reader that asks for an offset begins: there, or at the oldest byte that is kept.

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
    call: Call, host: Host, record: Record, process: Process, stream: Stream, start: int
) -> AsyncGenerator[list[Part] | OutputEnd, None]:
    """Its output as it comes, as long as the caller may; no parts where nothing came for a second.

    It ends with `HistoryChanged` when its sandbox goes back in time: what comes then is another stream.
    """
    named = feeds.Stream(record.id, process.history, process.id, stream)
    follow = call.platform.feeds.follow(
        named,
        start,
        lambda at: host.follow_output(record.id, process.id, stream, at, process.history),
        BELIEVED_SECONDS,
    )
    async with aclosing(follow) as items:
        async for item in items:
            if not await call.platform.door.still_good(call.who):
                return
            yield item
