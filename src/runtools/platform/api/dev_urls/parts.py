"""``/parts/gateway/dev-urls``: what the gateway asks about dev URLs (`core/ports/admitting`)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.platform.api.calls import call_of
from runtools.platform.api.dev_urls import admission
from runtools.platform.core.ports.admitting import PREFIX, Asked, Standing, Stays, Waking
from runtools.platform.kit.http import one

router = APIRouter(prefix=PREFIX, tags=["parts"], include_in_schema=False)


@router.post("/admit")
async def admit(request: Request) -> Response:
    """Whether somebody may enter."""
    call = call_of(request)
    call.did_nothing = True
    verdict = await admission.admit(call.platform, call.take(Asked))
    return call.answer(one(verdict), keep=False)


@router.post("/stays")
async def stays(request: Request) -> Response:
    """Which of those who were let in may stay."""
    call = call_of(request)
    call.did_nothing = True
    said = await admission.stays(call.platform, call.take(Standing).asked)
    return call.answer(one(Stays(stays=tuple(said))), keep=False)


@router.post("/waken")
async def waken(request: Request) -> Response:
    """Somebody who was let in wants something of a sandbox that may sleep."""
    call = call_of(request)
    call.did_nothing = True
    waking = call.take(Waking)
    await admission.waken(call.platform, waking.sandbox_id)
    return call.answer(one(waking), keep=False)
