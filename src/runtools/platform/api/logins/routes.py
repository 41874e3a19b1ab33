"""``/v1/logins``: what a command line that has no key yet may ask."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import RateLimited
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.logins import service
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.people import Login, LoginFinish, LoginResult, LoginStart

router = APIRouter(prefix="/v1/logins", tags=["logins"])

_INTERVAL_SECONDS = 1.5


@router.post("", **document.route(Envelope[Login], RateLimited, status=201, takes=LoginStart))
async def start(request: Request) -> Response:
    """Ask to be let in by a person. Needs no key."""
    call = call_of(request)
    wanted = call.take(LoginStart)
    login, code = await service.start(call, wanted.challenge, wanted.machine)
    shown = Login(
        id=login.id,
        code=code,
        url=f"{call.platform.public_url}/login",
        expires_at=login.expires_at,
        interval_seconds=_INTERVAL_SECONDS,
    )
    return call.answer(one(shown), 201, keep=False)


@router.post("/finish", **document.route(Envelope[LoginResult], takes=LoginFinish))
async def finish(request: Request) -> Response:
    """Fetch the session once a person has approved, by the secret whose digest began it."""
    call = call_of(request)
    wanted = call.take(LoginFinish)
    token = await service.finish(call, wanted.id, wanted.verifier)
    result = LoginResult(state="waiting" if token is None else "approved", token=token)
    return call.answer(one(result), service.FETCHED, keep=False)
