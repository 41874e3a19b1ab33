"""``/v1/events``: every change of sandboxes as it happens, resumable by id."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.ledger import store as ledger
from runtools.platform.api.ledger.store import Entry
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.sandboxes.load import load
from runtools.platform.kit import sse

router = APIRouter(prefix="/v1", tags=["events"])

After = Annotated[int | None, Query(ge=0, le=2**62, description="go on after this event")]
_STREAM = "text/event-stream"
_BATCH = 100


@router.get("/events", **document.route(None, streams=_STREAM))
async def of_org(request: Request, after: After = None) -> Response:
    """Changes of all sandboxes: events `sandbox` with a SandboxEvent. Without `after` from now on."""
    call = call_of(request)
    start = sse.resume_point(request.scope, after)
    return sse.EventStream(_changes(call, None, start))


@router.get("/sandboxes/{ref}/events", **document.route(None, NotFound, streams=_STREAM))
async def of_sandbox(request: Request, ref: str, after: After = None) -> Response:
    """Changes of one sandbox; `after=0` begins with its first."""
    call = call_of(request)
    record = await load(call.platform, call.org, ref)
    start = sse.resume_point(request.scope, after)
    return sse.EventStream(_changes(call, record.id, start))


async def _changes(
    call: Call, sandbox_id: str | None, after: int | None
) -> AsyncGenerator[sse.Event, None]:
    """Ledger lines after a number, then new ones, for as long as the caller may."""
    platform = call.platform
    with platform.bus.watching(sandbox_id or call.org) as watch:
        if after is None:
            after = await platform.db.read(orgs.last_ledger_id, call.org)
        while await platform.door.still_good(call.who):
            lines = await platform.db.read(ledger.events, call.org, sandbox_id, after, _BATCH)
            for line in lines:
                yield sse.Event("sandbox", _data(line), line.id)
                after = line.id
            if len(lines) < _BATCH:
                await watch.wait()


def _data(line: Entry) -> bytes:
    """A SandboxEvent; the sandbox's JSON has been written when the line was."""
    head = {"id": line.id, "at": line.at.isoformat(), "cause": line.cause, "actor": line.actor}
    text = json.dumps(head, separators=(",", ":"))
    return f'{text[:-1]},"sandbox":{line.look}}}'.encode()
