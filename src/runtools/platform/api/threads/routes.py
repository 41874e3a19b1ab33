"""``/v1/threads``: conversations that are kept across runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from runtools.errors import Conflict, IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import InProject, Page, cut, mark, place
from runtools.platform.api.logs.store import Place
from runtools.platform.api.projects import service as projects
from runtools.platform.api.threads import service, store
from runtools.platform.api.threads.service import shape
from runtools.platform.kit import http
from runtools.platform.kit.db import micros, moment
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.runs import Thread
from runtools.sdk.shapes.threads import ThreadChange, ThreadExport, ThreadMessage

router = APIRouter(prefix="/v1/threads", tags=["threads"])


class ThreadPage(InProject):
    """Which threads are listed: those that fit all of what is given."""

    agent: str | None = Field(None, max_length=64, pattern=r"^[^\x00]*$", description="slug or id")


@router.get("", **document.route(Envelope[list[Thread]], NotFound))
async def list_(request: Request, page: Annotated[ThreadPage, Query()]) -> Response:
    """The org's threads, the one used last first."""
    call = call_of(request)
    sought = store.Sought(agent=page.agent, project_id=await projects.found(call, page.project_id))
    below = place(page.cursor)
    found = await call.platform.db.read(store.page, call.org, sought, below, page.limit + 1)
    shown, more = cut(found, page.limit, lambda each: mark(each[0].updated_at, each[0].id))
    return call.page([one(shape(*each)) for each in shown], more)


@router.get("/{thread_id}", **document.route(Envelope[Thread], NotFound))
async def get(request: Request, thread_id: str) -> Response:
    """A thread."""
    call = call_of(request)
    return call.answer(one(shape(*await service.get(call, thread_id))))


@router.patch(
    "/{thread_id}",
    **document.route(Envelope[Thread], NotFound, IdempotencyMismatch, takes=ThreadChange),
)
async def change(request: Request, thread_id: str) -> Response:
    """Give a thread another title, or none."""
    call = call_of(request)
    title = call.take(ThreadChange).title
    return call.answer(one(shape(*await service.rename(call, thread_id, title))))


@router.delete(
    "/{thread_id}", **document.route(Envelope[Thread], NotFound, Conflict, IdempotencyMismatch)
)
async def delete(request: Request, thread_id: str) -> Response:
    """Delete a thread: its runs, and all that was said in it. Its sandbox stays."""
    call = call_of(request)
    return call.answer(one(shape(*await service.remove(call, thread_id))))


@router.get("/{thread_id}/messages", **document.route(Envelope[list[ThreadMessage]], NotFound))
async def messages(request: Request, thread_id: str, page: Annotated[Page, Query()]) -> Response:
    """What people and the model said in it, in order. A page is shorter where what was said is long."""
    call = call_of(request)
    found, last = await service.messages(call, thread_id, _place(page.cursor), page.limit)
    next_cursor = None if last is None else http.cursor(micros(last.at), last.run_id, last.seq)
    return call.page([one(each) for each in found], next_cursor)


@router.get("/{thread_id}/export", **document.route(Envelope[ThreadExport], NotFound))
async def export(request: Request, thread_id: str) -> Response:
    """All of it: its runs, the oldest first, with their whole logs."""
    call = call_of(request)
    written = service.export(call, *await service.get(call, thread_id))
    return http.Stream(written, media_type=http.JSON)


def _place(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    at, run_id, seq = http.position(cursor, int, str, int)
    try:
        return Place(moment(at), run_id, seq)
    except OverflowError:
        raise http.wrong_field("cursor", "not a cursor of this list") from None
