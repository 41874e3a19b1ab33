"""``/parts/gateway/ssh``: what the gateway asks about logins by SSH (`core/ports/doorway`)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.platform.api.calls import call_of
from runtools.platform.api.ssh_access import service, store
from runtools.platform.core.ports.doorway import (
    PREFIX,
    Address,
    Answer,
    Entering,
    KeyShown,
    PasswordShown,
    Standing,
    Visit,
)
from runtools.platform.kit.http import one

router = APIRouter(prefix=PREFIX, tags=["parts"], include_in_schema=False)


@router.post("/key")
async def key(request: Request) -> Response:
    """Whether a key opens."""
    call = call_of(request)
    shown = call.take(KeyShown)
    opens = await service.key_opens(call.platform, shown.sandbox_id, shown.fingerprint)
    return call.answer(one(Answer(admitted=opens)), keep=False)


@router.post("/password")
async def password(request: Request) -> Response:
    """Whether a password opens."""
    call = call_of(request)
    opens = await service.password_opens(call.platform, call.take(PasswordShown))
    return call.answer(one(Answer(admitted=opens)), keep=False)


@router.post("/enter")
async def enter(request: Request) -> Response:
    """A login begins."""
    call = call_of(request)
    entry = await service.enter(call.platform, call.take(Entering))
    return call.answer(one(entry), keep=False)


@router.post("/standing")
async def standing(request: Request) -> Response:
    """Which logins are over."""
    call = call_of(request)
    ends = await service.ended(call.platform, call.take(Standing).visits)
    return call.answer(one(ends), keep=False)


@router.post("/waken")
async def waken(request: Request) -> Response:
    """Somebody who is in says something to a sandbox that may sleep."""
    call = call_of(request)
    visit = call.take(Visit)
    await service.waken(call.platform, visit)
    return call.answer(one(visit), keep=False)


@router.post("/address")
async def address(request: Request) -> Response:
    """What the gateway is known by."""
    call = call_of(request)
    said = call.take(Address)
    await call.platform.db.write(store.set_host_keys, said.host_keys)
    return call.answer(one(said), keep=False)
