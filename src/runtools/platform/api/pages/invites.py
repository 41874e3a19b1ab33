"""The pages of an invitation: what it offers, and accepting it as somebody new or somebody known.

The link's code goes from behind the ``#`` into a form, and from there into a cookie of ten minutes that no
script reads, so that it is in no address that a server sees.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from runtools.errors import Conflict, InvalidRequest, NotFound, RunToolsError
from runtools.platform.api.callers import sent
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.invitations import service
from runtools.platform.api.invitations.service import Offer
from runtools.platform.api.pages import render
from runtools.platform.api.pages.render import AWAY
from runtools.platform.api.pages.routes import enter, provider_name, user_of
from runtools.platform.kit import http
from runtools.sdk.shapes.people import Join

router = APIRouter(tags=["pages"], include_in_schema=False)

CODE_COOKIE = "__Host-runtools-invite"
_SECONDS = 600


@router.get("/invite")
async def invite_page(request: Request) -> Response:
    """What the invitation offers, or a field for its code."""
    call = call_of(request)
    code = sent.cookie(request.scope, CODE_COOKIE)
    if code is None:
        return await _shown(call, None)
    try:
        offer = await service.look(call.platform, code)
    except NotFound as error:
        return render.without_cookie(await _shown(call, None, error=error), CODE_COOKIE)
    return await _shown(call, offer)


@router.post("/invite", name="open_invitation")
async def open_invitation(request: Request) -> Response:
    """Keep the code while the person says who it is."""
    call = call_of(request)
    call.did_nothing = True
    code = render.fields(call).get("code", "").strip().rpartition("#")[2]
    try:
        await service.look(call.platform, code)
    except NotFound as error:
        return await _shown(call, None, error=error)
    return render.with_cookie(render.away("/invite"), CODE_COOKIE, code, _SECONDS)


@router.post("/invite/accept", name="accept_invitation")
async def accept(request: Request) -> Response:
    """Accept it as the person who is signed in."""
    call = call_of(request)
    user, code = await user_of(call), sent.cookie(request.scope, CODE_COOKIE)
    if user is None or code is None:
        call.did_nothing = True
        return render.away("/invite")
    try:
        await service.accept(call, code, user.id, AWAY)
    except RunToolsError as error:
        call.failed = error.code
        return render.without_cookie(await _shown(call, None, error=error), CODE_COOKIE)
    return render.without_cookie(render.away("/account"), CODE_COOKIE)


@router.post("/invite/join", name="join")
async def join(request: Request) -> Response:
    """Accept it as somebody new."""
    call = call_of(request)
    code, form = sent.cookie(request.scope, CODE_COOKIE), render.fields(call)
    if code is None:
        call.did_nothing = True
        return render.away("/invite")
    try:
        wanted = _wanted(form)
        user = await service.join(call, code, wanted.name, wanted.password, AWAY)
    except NotFound as error:
        call.failed = error.code
        return render.without_cookie(await _shown(call, None, error=error), CODE_COOKIE)
    except (InvalidRequest, Conflict) as error:
        call.failed = error.code
        offer = await service.look(call.platform, code)
        return await _shown(call, offer, name=form.get("name", "")[:100], error=error)
    answer = await enter(request, call, user.id, "/account")
    return render.without_cookie(answer, CODE_COOKIE)


def _wanted(form: dict[str, str]) -> Join:
    try:
        return Join.model_validate(form)
    except ValidationError as exc:
        raise http.invalid(exc.errors(include_url=False, include_input=False)) from None


async def _shown(
    call: Call, offer: Offer | None, *, name: str = "", error: RunToolsError | None = None
) -> Response:
    values = {
        "offer": offer,
        "user": await user_of(call),
        "name": name,
        "provider": provider_name(call),
        "error": None if error is None else render.said(error),
    }
    return render.page("invite", values, status=200 if error is None else error.status)
