"""``/v1/sandboxes/{ref}/processes/…``: durable processes, their output and input."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query, Request, WebSocket
from starlette.responses import Response
from starlette.types import Scope

from runtools.errors import (
    CapacityExhausted,
    Conflict,
    DeadlineExceeded,
    DiskFull,
    FileForbidden,
    FileMissing,
    FileNotDirectory,
    GuestMisbehaved,
    GuestUnreachable,
    HistoryChanged,
    HostUnavailable,
    IdempotencyMismatch,
    InputClosed,
    InputFull,
    InvalidPath,
    NotFound,
    OutcomeUnknown,
    ProcessEnded,
    QuotaExceeded,
    SandboxPaused,
    SandboxStopped,
    TooLarge,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.api import document
from runtools.platform.api.calls import NULL, call_of
from runtools.platform.api.processes import feeds, service, terminal
from runtools.platform.api.processes.feeds import Part
from runtools.platform.api.sandboxes import inside, rules
from runtools.platform.kit import sse
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.http import header, many, one, wrong_field
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.processes import (
    HISTORY_PATTERN,
    MAX_HISTORY,
    MAX_READ_BYTES,
    TERMINAL_PROTOCOL,
    InputTaken,
    OutputEnd,
    Process,
    ProcessRequest,
    SignalRequest,
    Stream,
    TerminalSize,
    TerminalTicket,
    TerminalTicketRequest,
)

router = APIRouter(prefix="/v1/sandboxes/{ref}/processes", tags=["processes"])

_OCTETS = "application/octet-stream"
_PIECE = {
    "X-Output-Offset": "where the bytes begin",
    "X-Output-Dropped": "how many before them are no longer kept",
    "X-Output-End": "where the next read goes on",
}
_LOOK = (
    *(NotFound, SandboxStopped, SandboxPaused),
    *(HostUnavailable, GuestUnreachable, GuestMisbehaved),
)
_ENTER = (*_LOOK, DeadlineExceeded, QuotaExceeded, CapacityExhausted, WaitsForRoom)
_SEND = (*_ENTER, ProcessEnded, IdempotencyMismatch)

Offset = Annotated[int, Query(ge=0, le=2**62, description="in bytes, from the first ever written")]
History = Annotated[
    str | None,
    Query(
        pattern=HISTORY_PATTERN,
        description="of which the offset is, as the process says: `history_changed` when it is in another",
    ),
]
Of = Annotated[Stream, Query(description="output: both streams as they came")]


@router.post(
    "",
    **document.route(
        Envelope[Process],
        *_ENTER,
        FileMissing,
        FileForbidden,
        FileNotDirectory,
        InvalidPath,
        OutcomeUnknown,
        TooLarge,
        DiskFull,
        IdempotencyMismatch,
        ProcessEnded,
        status=201,
        takes=ProcessRequest,
    ),
)
async def start(request: Request, ref: str) -> Response:
    """Start a process that outlives the request. Wakes a paused sandbox."""
    call = call_of(request)
    process = await service.start(call, ref, call.take(ProcessRequest))
    return call.answer(one(process), 201, keep=False)


@router.get("", **document.route(Envelope[list[Process]], *_ENTER))
async def list_(request: Request, ref: str) -> Response:
    """All that are known, the oldest first."""
    call = call_of(request)
    host, record = await inside.beside(call, ref)
    return call.answer(many(await host.list_processes(record.id)))


@router.get("/{process_id}", **document.route(Envelope[Process], *_LOOK, WaitsForRoom))
async def get(
    request: Request,
    ref: str,
    process_id: str,
    wait_ms: Annotated[int, Query(alias="waitMs", ge=0, le=60_000)] = 0,
) -> Response:
    """How one stands; `waitMs` waits for its end. Wakes nothing: a pause is waited out. `sandbox_paused`:
    nobody knows, because the sandbox could not tell before it was paused; asked again, it is waited for.
    """
    call = call_of(request)
    host, record = await inside.beside(call, ref)
    process_id = rules.check_process_id(process_id)
    return call.answer(one(await host.wait_process(record.id, process_id, wait_ms)))


@router.delete("/{process_id}", **document.route(Envelope[None], *_LOOK, Conflict, Unavailable))
async def end(request: Request, ref: str, process_id: str) -> Response:
    """End it with all that it started. One that has not begun yet does not begin any more, also where its
    start waits for the sandbox: that is answered with `process_ended`. Wakes nothing and waits for no room:
    in a sandbox that sleeps it ends once that goes on. That is written down before it is answered: on a
    full disk it is `unavailable`, and beyond 1,000 that wait in a sandbox a `conflict`. One that is not
    known is none that runs.
    """
    call = call_of(request)
    host, record = await inside.beside(call, ref)
    await host.end_process(record.id, rules.check_process_id(process_id))
    return call.answer(NULL, keep=False)


@router.get(
    "/{process_id}/output",
    **document.route(None, *_ENTER, HistoryChanged, streams=_OCTETS, headers=_PIECE),
)
async def output(
    request: Request,
    ref: str,
    process_id: str,
    stream: Of = "output",
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_READ_BYTES)] = MAX_READ_BYTES,
    history: History = None,
) -> Response:
    """Bytes that are there now; none at the end. `X-Output-Offset` says where they begin,
    `X-Output-End` where the next read goes on, `X-Output-Dropped` how many before them are no longer kept.
    """
    call = call_of(request)
    piece = await service.read(call, ref, process_id, stream, offset, limit, history)
    headers = {
        "X-Output-Offset": str(piece.offset),
        "X-Output-Dropped": str(piece.dropped),
        "X-Output-End": str(piece.offset + len(piece.data)),
        "X-Content-Type-Options": "nosniff",
    }
    return Response(piece.data, media_type=_OCTETS, headers=headers)


@router.get(
    "/{process_id}/follow",
    **document.route(None, *_LOOK, HistoryChanged, streams="text/event-stream"),
)
async def follow(
    request: Request,
    ref: str,
    process_id: str,
    stream: Of = "output",
    offset: Offset = 0,
    history: History = None,
) -> Response:
    """Every byte from an offset on as it comes: events `output` with an OutputPiece, whose id is
    `offset@history` after it, at last `end` with an OutputEnd. Wakes nothing, and goes on after a pause.
    """
    call = call_of(request)
    begin, history = _resumed(request.scope, offset, history)
    place = await service.begin(call, ref, process_id, stream, begin, history)
    items = service.follow(call, place, stream, begin)
    return sse.WrittenStream(_events(items, call.platform.clock))


def _resumed(scope: Scope, offset: int, history: str | None) -> tuple[int, str | None]:
    """Where a reader stands: as the id of the last event says, else as the query does."""
    given = header(scope, b"last-event-id")
    if given is None:
        return offset, history
    found = re.fullmatch(rb"([0-9]{1,18})(?:@([A-Za-z0-9]{1,%d}))?" % MAX_HISTORY, given)
    if found is None:
        raise wrong_field("Last-Event-ID", "not an id of this stream")
    return int(found[1]), found[2].decode() if found[2] else history


async def _events(
    items: AsyncGenerator[list[Part] | OutputEnd, None], clock: Clock
) -> AsyncGenerator[bytes, None]:
    """The events, as many at once as there are, and a ping where for long there is none."""
    said = clock.monotonic()
    async with aclosing(items):
        async for item in items:
            if isinstance(item, OutputEnd):
                ended = feeds.place(item.offset, item.process.history)
                yield sse.Event("end", one(item), ended).encode()
            elif item:
                yield b"".join([part.event for part in item])
            elif clock.monotonic() - said < sse.PING_SECONDS:
                continue
            else:
                yield sse.PING
            said = clock.monotonic()


@router.post(
    "/{process_id}/input",
    **document.route(Envelope[InputTaken], *_SEND, InputFull, InputClosed, TooLarge, body=_OCTETS),
)
async def send_input(request: Request, ref: str, process_id: str) -> Response:
    """Give it input, at most 64 KiB; all of it is taken, or none."""
    call = call_of(request)
    host, sandbox_id = await inside.enter(call, ref)
    process_id = rules.check_process_id(process_id)
    taken = await host.send_input(sandbox_id, process_id, call.op, call.body)
    return call.answer(one(InputTaken(taken=taken)), keep=False)


@router.post("/{process_id}/input/close", **document.route(Envelope[Process], *_SEND))
async def close_input(request: Request, ref: str, process_id: str) -> Response:
    """The end of its input, after what was sent; in a terminal the end-of-file character."""
    call = call_of(request)
    host, sandbox_id = await inside.enter(call, ref)
    process = await host.close_input(sandbox_id, rules.check_process_id(process_id), call.op)
    return call.answer(one(process), keep=False)


@router.post(
    "/{process_id}/signal", **document.route(Envelope[Process], *_SEND, takes=SignalRequest)
)
async def signal(request: Request, ref: str, process_id: str) -> Response:
    """Send a signal to it and all that it started; default TERM."""
    call = call_of(request)
    wanted = call.take(SignalRequest)
    host, sandbox_id = await inside.enter(call, ref)
    process_id = rules.check_process_id(process_id)
    process = await host.signal_process(sandbox_id, process_id, call.op, wanted.signal)
    return call.answer(one(process), keep=False)


@router.post(
    "/{process_id}/resize", **document.route(Envelope[Process], *_SEND, takes=TerminalSize)
)
async def resize(request: Request, ref: str, process_id: str) -> Response:
    """Give its terminal another size."""
    call = call_of(request)
    size = call.take(TerminalSize)
    host, sandbox_id = await inside.enter(call, ref)
    process_id = rules.check_process_id(process_id)
    process = await host.resize_terminal(sandbox_id, process_id, call.op, size)
    return call.answer(one(process), keep=False)


# --- terminals ---


@router.post(
    "/{process_id}/terminal-ticket",
    **document.route(Envelope[TerminalTicket], *_LOOK, status=201, takes=TerminalTicketRequest),
)
async def ticket(request: Request, ref: str, process_id: str) -> Response:
    """Let a page of a browser open the terminal: once, within 30 seconds, from one origin."""
    call = call_of(request)
    wanted = call.take(TerminalTicketRequest)
    place = await service.begin(call, ref, process_id, "output", 0, None)
    path = f"/v1/sandboxes/{place.record.id}/processes/{place.process_id}/terminal"
    secret, until = await call.platform.tickets.make(call.who, path, wanted.origin)
    made = TerminalTicket(ticket=secret, path=path, protocol=TERMINAL_PROTOCOL, expires_at=until)
    return call.answer(one(made), 201, keep=False)


@router.websocket("/{process_id}/terminal", name="terminal")
async def watch(socket: WebSocket, ref: str, process_id: str) -> None:
    """A terminal; the messages are described in `terminal`."""
    await terminal.serve(socket, ref, process_id)
