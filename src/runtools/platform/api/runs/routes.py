"""``/v1/run`` and ``/v1/runs``: giving agents work, reading along, and having a word in it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from runtools.errors import (
    AlreadyDecided,
    Conflict,
    IdempotencyMismatch,
    NotFound,
    QuotaExceeded,
    RunEnded,
    RunIllegalMove,
    SandboxStopped,
)
from runtools.platform.api import document
from runtools.platform.api.attending import attended
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.frontends import streams
from runtools.platform.api.frontends.telling import Teller
from runtools.platform.api.lists import InProject, cut, mark, place
from runtools.platform.api.logs import store as logs
from runtools.platform.api.projects import service as projects
from runtools.platform.api.runs import log as runs_log
from runtools.platform.api.runs import look, service, store
from runtools.platform.api.runs.standing import all_shown, shown
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.core.runs import Status
from runtools.platform.kit import sse
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.runs import (
    Run,
    RunApproval,
    RunContinue,
    RunEvent,
    RunRequest,
    RunStatus,
    RunSteer,
)

router = APIRouter(prefix="/v1", tags=["runs"])

STREAM = "text/event-stream"
_OF_FORMATS = {"x-vercel-ai-ui-message-stream": "v1, where that is the format asked for"}
RUN_HEADERS = {"X-Run-ID": "the run", "X-Thread-ID": "its thread", **_OF_FORMATS}
_WAIT_SECONDS, _MOST_SECONDS = 300, 3600
_ACT = (NotFound, RunEnded, Conflict, IdempotencyMismatch)
_NO_NUL = r"^[^\x00]*$"

After = Annotated[int, Query(ge=0, le=2**62, description="go on after this event")]
Kind = Annotated[
    streams.Format,
    Query(
        alias="format",
        description="events: our own; ai-sdk: UI message chunks of the AI SDK; ag-ui: events of AG-UI",
    ),
]
WaitSeconds = Annotated[
    int,
    Query(
        alias="waitSeconds",
        ge=0,
        le=_MOST_SECONDS,
        description="how long to wait for the end, where it is not streamed; 0: not at all",
    ),
]


class RunPage(InProject):
    """Which runs are listed: those that fit all of what is given."""

    status: list[RunStatus] = Field([], description="repeatable; default: all")
    agent: str | None = Field(None, max_length=64, pattern=_NO_NUL, description="slug or id")
    thread_id: str | None = Field(None, max_length=64, pattern=_NO_NUL)


def _run_route() -> dict[str, Any]:
    """One route with two forms of success: the run, or its events."""
    said = document.route(
        Envelope[Run],
        NotFound,
        Conflict,
        SandboxStopped,
        QuotaExceeded,
        IdempotencyMismatch,
        takes=RunRequest,
        headers=RUN_HEADERS,
    )
    stream = {STREAM: {"schema": {"type": "string"}}}
    said["responses"][200]["content"] = stream
    said["responses"][200]["description"] = "How the run ended; with `stream`, its events"
    said["responses"][202] = {
        "model": Envelope[Run],
        "description": "It has not ended yet: it goes on, or waits for an approval",
        "headers": said["responses"][200]["headers"],
    }
    return said


@router.post("/run", **_run_route())
async def run(
    request: Request, wait_seconds: WaitSeconds = _WAIT_SECONDS, kind: Kind = "events"
) -> Response:
    """Give an agent work. Answers with the run when it has ended; or, when the time is up or it waits for
    an

    approval, with 202 and the run as it then is. With `stream` it answers with the run's events. Either
    way the run does not hang on the caller: who leaves finds it under `/v1/runs/{id}`.
    """
    call = call_of(request)
    wanted = call.take(RunRequest)
    record = await service.create(call, wanted)
    call.subject = record.id
    if wanted.stream:
        return await _told(call, record, 0, named(record), kind)
    if wait_seconds:
        record = await attended(request, call, service.until(call, record.id, wait_seconds))
    call.headers += [
        (name.lower().encode(), value.encode()) for name, value in named(record).items()
    ]
    return call.answer(
        await shown(call.platform, record), 200 if store.is_over(record) else 202, keep=False
    )


@router.get("/runs", **document.route(Envelope[list[Run]], NotFound))
async def list_(request: Request, page: Annotated[RunPage, Query()]) -> Response:
    """The org's runs, newest first."""
    call = call_of(request)
    sought = store.Sought(
        statuses=page.status,
        agent=page.agent,
        thread_id=page.thread_id,
        project_id=await projects.found(call, page.project_id),
    )
    below = place(page.cursor)
    found = await call.platform.db.read(store.page, call.org, sought, below, page.limit + 1)
    listed, next_cursor = cut(found, page.limit, lambda one: mark(one.created_at, one.id))
    return call.page(await all_shown(call.platform, listed), next_cursor)


@router.get("/runs/{run_id}", **document.route(Envelope[Run], NotFound))
async def get(
    request: Request,
    run_id: str,
    wait_seconds: Annotated[int, Query(alias="waitSeconds", ge=0, le=60)] = 0,
) -> Response:
    """A run. `waitSeconds` waits so long for it to end, or to wait for an approval."""
    call = call_of(request)
    if wait_seconds:
        record = await attended(request, call, service.until(call, run_id, wait_seconds))
    else:
        record = await service.get(call, run_id)
    return call.answer(await shown(call.platform, record))


@router.get(
    "/runs/{run_id}/events",
    **document.route(None, NotFound, streams=STREAM, headers=_OF_FORMATS),
)
async def events(
    request: Request, run_id: str, after: After = 0, kind: Kind = "events"
) -> Response:
    """Its events after a number, then what comes, until its `done`. Each is named by its type, and its id
    is

    its `seq`; live pieces have none, and are given to who reads at the moment.
    """
    call = call_of(request)
    start = sse.resume_point(request.scope, after) or 0
    record = await service.get(call, run_id)
    return await _told(call, record, start, {}, kind)


@router.post("/runs/{run_id}/cancel", **document.route(Envelope[Run], *_ACT))
async def cancel(request: Request, run_id: str) -> Response:
    """End a run: what is under way is ended, and no call stays without a result. One that is over stays."""
    call = call_of(request)
    record = await service.cancel(call, run_id)
    return call.answer(await shown(call.platform, record))


@router.post(
    "/runs/{run_id}/approve",
    **document.route(Envelope[Run], *_ACT, AlreadyDecided, takes=RunApproval),
)
async def approve(request: Request, run_id: str) -> Response:
    """Decide on a call that waits for a person; with other arguments, or a reason for the model."""
    call = call_of(request)
    record = await service.approve(call, run_id, call.take(RunApproval))
    return call.answer(await shown(call.platform, record))


@router.post(
    "/runs/{run_id}/messages",
    **document.route(Envelope[Run], *_ACT, takes=RunSteer),
)
async def steer(request: Request, run_id: str) -> Response:
    """Say something to a run under way: after the turn (`queue`), or breaking it off (`interrupt`)."""
    call = call_of(request)
    record = await service.steer(call, run_id, call.take(RunSteer))
    return call.answer(await shown(call.platform, record))


@router.post(
    "/runs/{run_id}/continue",
    **document.route(
        Envelope[Run], *_ACT, RunIllegalMove, QuotaExceeded, status=201, takes=RunContinue
    ),
)
async def continue_(request: Request, run_id: str) -> Response:
    """Go on from where a limit stopped a run: a new run in its thread, with a budget of its own."""
    call = call_of(request)
    record = await service.continue_(call, run_id, call.take(RunContinue))
    call.subject = record.id
    return call.answer(await shown(call.platform, record), 201)


def named(record: Record) -> dict[str, str]:
    """The headers that name a run."""
    return {"X-Run-ID": record.id, "X-Thread-ID": record.thread_id}


async def _told(
    call: Call, record: Record, after: int, headers: dict[str, str], kind: streams.Format
) -> Response:
    told: Collection[str] = ()
    if after and kind == "ai-sdk":  # the only one that has to know
        told = await call.platform.db.read(runs_log.calls, record, after)
    tells = streams.teller(kind, record.id, record.thread_id, told)
    return follow(call, record, after, headers | streams.headers(kind), kind, tells)


def follow(
    call: Call,
    record: Record,
    after: int,
    headers: dict[str, str],
    kind: streams.Format,
    tells: Teller | None,
) -> Response:
    """The stream of a run after one of its events; ``tells``: in the words of a front end."""
    platform, org_id = call.platform, call.org

    async def log(position: int) -> tuple[list[Event], bool]:
        return await platform.db.read(logs.events, org_id, record.id, position)

    async def may() -> bool:
        return await platform.door.still_good(call.who)

    after = min(after, record.last_seq)
    if store.is_over(record) and after >= record.last_seq:
        after = record.last_seq - 1  # there is an end to be told, whatever number was sent

    async def waits() -> int | None:
        now = await service.get(call, record.id)
        return now.last_seq if now.status == Status.WAITING else None

    async def before() -> streams.Before:
        found = await platform.db.read(runs_log.open_approvals, record, after)
        found += await platform.db.read(runs_log.open_fronts, record, after)
        carried_out = await platform.db.read(runs_log.closed_fronts, record)
        opened = [RunEvent.model_validate_json(look.event(one)) for one in found]
        return streams.Before(opened, carried_out)

    written = platform.readers.follow(record.id, after, log, may)
    if tells is not None:
        written = streams.translated(kind, tells, written, after, waits, before)
    return sse.WrittenStream(written, headers)
