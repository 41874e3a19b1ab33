"""``/v1/sandboxes``: the life of sandboxes. What goes on inside is in `inside_routes`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from runtools.errors import (
    BuildFailed,
    CapacityExhausted,
    HostUnavailable,
    IdempotencyMismatch,
    IllegalMove,
    IsolationUnavailable,
    NameTaken,
    NotFound,
    QuotaExceeded,
    SandboxStopped,
    SnapshotUnfit,
    WaitsForRoom,
)
from runtools.platform.api import document
from runtools.platform.api.attending import attended
from runtools.platform.api.calls import call_of
from runtools.platform.api.ledger import store as ledger
from runtools.platform.api.ledger.store import Entry
from runtools.platform.api.lists import Page, cut, mark, place
from runtools.platform.api.projects import service as projects
from runtools.platform.api.sandboxes import acts, births, rules, store
from runtools.platform.api.sandboxes.load import is_settled, load, until
from runtools.platform.api.sandboxes.look import look, shape
from runtools.platform.kit import http
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.sandboxes import (
    Fork,
    LedgerEntry,
    Rollback,
    Sandbox,
    SandboxCreate,
    SandboxFork,
    SandboxRecover,
    State,
)

router = APIRouter(prefix="/v1/sandboxes", tags=["sandboxes"])


_ACT = (NotFound, IllegalMove, SandboxStopped, IdempotencyMismatch, HostUnavailable)


class SandboxPage(Page):
    """Which sandboxes are listed: those that fit all of what is given."""

    state: list[State] = Field([], description="repeatable; default: all but stopped")
    tag: list[str] = Field([], max_length=16, description="key:value, repeatable")
    template: str | None = Field(None, max_length=63, pattern=r"^[^\x00]*$")
    name: str | None = Field(None, max_length=63, pattern=r"^[^\x00]*$")
    project_id: str | None = Field(
        None, max_length=64, pattern=r"^[^\x00]*$", description="a project's id or name"
    )


@router.post(
    "",
    **document.route(
        Envelope[Sandbox],
        NotFound,
        NameTaken,
        BuildFailed,
        SandboxStopped,
        CapacityExhausted,
        IsolationUnavailable,
        HostUnavailable,
        IdempotencyMismatch,
        QuotaExceeded,
        status=201,
        takes=SandboxCreate,
    ),
)
async def create(request: Request) -> Response:
    """Make a sandbox. Answers when it runs, or once it has its place in the queue where there is no room;

    after 60 s, or with `waitForReady: false` at once, as it then is: `creating`.
    """
    call = call_of(request)
    record = await births.create(call, call.take(SandboxCreate))
    return call.answer(look(record), 201)


@router.get("", **document.route(Envelope[list[Sandbox]], NotFound))
async def list_(request: Request, page: Annotated[SandboxPage, Query()]) -> Response:
    """The org's sandboxes, newest first."""
    call = call_of(request)
    wanted = store.Filter(
        states=page.state,
        tags=rules.tag_filter(page.tag),
        template=page.template,
        name=page.name,
        project_id=await projects.found(call, page.project_id),
    )
    after = place(page.cursor)
    found = await call.platform.db.read(store.page, call.org, wanted, after, page.limit + 1)
    shown, more = cut(found, page.limit, lambda record: mark(record.created_at, record.id))
    return call.page([look(record) for record in shown], more)


@router.get("/{ref}", **document.route(Envelope[Sandbox], NotFound))
async def get(
    request: Request,
    ref: str,
    wait_seconds: Annotated[int, Query(alias="waitSeconds", ge=0, le=60)] = 0,
) -> Response:
    """A sandbox by id or name. `waitSeconds` waits so long while an operation is under way."""
    call = call_of(request)
    record = await load(call.platform, call.org, ref)
    if wait_seconds and not is_settled(record):
        settled = until(call.platform, record.id, is_settled, wait_seconds)
        record = await attended(request, call, settled)
    return call.answer(look(record))


@router.delete("/{ref}", **document.route(Envelope[Sandbox], *_ACT))
async def destroy(request: Request, ref: str) -> Response:
    """End a sandbox and remove its disk and snapshots; of an ended one, the disk that is kept."""
    call = call_of(request)
    return call.answer(look(await acts.destroy(call, ref)))


@router.post("/{ref}/pause", **document.route(Envelope[Sandbox], *_ACT))
async def pause(request: Request, ref: str) -> Response:
    """Keep memory and processes, compute nothing."""
    call = call_of(request)
    return call.answer(look(await acts.pause(call, ref)))


@router.post(
    "/{ref}/resume",
    **document.route(Envelope[Sandbox], *_ACT, CapacityExhausted, WaitsForRoom, QuotaExceeded),
)
async def resume(
    request: Request,
    ref: str,
    wait_seconds: Annotated[int, Query(alias="waitSeconds", ge=0, le=60)] = 60,
) -> Response:
    """Go on from where it was paused. `waitSeconds` waits so long for room on its host; without any

    by then it is `waits_for_room`, and the sandbox waits on: `operation` is `queued` until there is.
    """
    call = call_of(request)
    return call.answer(look(await acts.resume(call, ref, wait_seconds)))


@router.post(
    "/{ref}/rollback",
    **document.route(Envelope[Sandbox], *_ACT, SnapshotUnfit, takes=Rollback),
)
async def rollback(request: Request, ref: str) -> Response:
    """Go back to a snapshot; what happened since is gone."""
    call = call_of(request)
    return call.answer(look(await acts.rollback(call, ref, call.take(Rollback))))


@router.post(
    "/{ref}/fork",
    **document.route(
        Envelope[Fork],
        *_ACT,
        NameTaken,
        CapacityExhausted,
        QuotaExceeded,
        status=201,
        takes=SandboxFork,
    ),
)
async def fork(request: Request, ref: str) -> Response:
    """Make copies of a sandbox as it is now, memory and processes included."""
    call = call_of(request)
    children, standstill = await births.fork(call, ref, call.take(SandboxFork))
    made = Fork(children=[shape(child) for child in children], standstill_ms=standstill)
    return call.answer(one(made), 201)


@router.post(
    "/{ref}/recover",
    **document.route(
        Envelope[Sandbox],
        *_ACT,
        NameTaken,
        CapacityExhausted,
        QuotaExceeded,
        status=201,
        takes=SandboxRecover,
    ),
)
async def recover(request: Request, ref: str) -> Response:
    """Boot a new sandbox from the disk of one that ended by itself."""
    call = call_of(request)
    record = await births.recover(call, ref, call.take(SandboxRecover))
    return call.answer(look(record), 201)


@router.get("/{ref}/why", **document.route(Envelope[list[LedgerEntry]], NotFound))
async def why(request: Request, ref: str, page: Annotated[Page, Query()]) -> Response:
    """Every change of a sandbox, the oldest first: what, when, why, and who asked."""
    call = call_of(request)
    record = await load(call.platform, call.org, ref)
    after = 0 if page.cursor is None else http.position(page.cursor, int)[0]
    found = await call.platform.db.read(
        ledger.of_sandbox, call.org, record.id, after, page.limit + 1
    )
    lines, more = cut(found, page.limit, lambda line: http.cursor(line.id))
    return call.page([one(_line(line)) for line in lines], more)


def _line(entry: Entry) -> LedgerEntry:
    return LedgerEntry.model_validate(
        {
            "seq": entry.id,
            "at": entry.at,
            "sandbox_id": entry.sandbox_id,
            "state": entry.state,
            "operation": entry.operation,
            "cause": entry.cause,
            "actor": entry.actor,
            "detail": entry.detail,
        }
    )
