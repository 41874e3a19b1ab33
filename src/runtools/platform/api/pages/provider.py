"""The pages between which a browser goes to the identity provider and comes back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from runtools.errors import NotFound, RunToolsError, Unauthenticated
from runtools.platform.api.callers import sent
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.identities import service
from runtools.platform.api.identities.provider import Provider
from runtools.platform.api.identities.store import Flow
from runtools.platform.api.pages import render
from runtools.platform.api.pages.invites import CODE_COOKIE
from runtools.platform.api.pages.render import AWAY
from runtools.platform.api.pages.routes import account_page, enter, onward, signin_page_of, user_of
from runtools.platform.kit import http

router = APIRouter(tags=["pages"], include_in_schema=False)

_COOKIE = "__Host-runtools-oidc"
_SECONDS = 600

Said = Annotated[str, Query(max_length=4000)]


@router.get("/signin/oidc")
async def leave(request: Request, to: Annotated[str, Query(alias="next")] = "") -> Response:
    """Off to the provider, from a page of ours alone.

    Else a page of somebody else, who has signed the browser in at the provider as another before, could
    link that identity to the person who is signed in here.
    """
    call = call_of(request)
    if http.header(request.scope, b"sec-fetch-site") != b"same-origin":
        return render.away(f"/signin?next={onward(to)}")
    user = await user_of(call)
    try:
        address, secret = await service.begin(
            call.platform, _provider(call), onward(to), None if user is None else user.id
        )
    except RunToolsError as error:
        return signin_page_of(request, call, onward(to), error=error)
    return render.with_cookie(RedirectResponse(address, 303), _COOKIE, secret, _SECONDS)


@router.get(service.PATH, name="sign_in_by_provider")
async def come_back(request: Request, state: Said = "", code: Said = "") -> Response:
    """Back from the provider."""
    call = call_of(request)
    call.did_nothing = True  # until there is a sign-in that it ends: anybody may ask for this page
    try:
        answer = await _entered(request, call, state, code)
    except RunToolsError as error:
        call.failed = error.code
        answer = signin_page_of(request, call, "/account", error=error)
    return render.without_cookie(answer, _COOKIE)


async def _entered(request: Request, call: Call, state: str, code: str) -> Response:
    if not code:
        raise Unauthenticated("the identity provider let nobody in", hint="begin again")
    provider, secret = _provider(call), sent.cookie(request.scope, _COOKIE)
    flow = await service.take(call.platform, state)
    call.did_nothing = False
    claims = await service.finish(call.platform, provider, flow, code, secret)
    if flow.user_id is not None:
        await service.link(call.platform, claims, _still_there(call, flow))
        user = await user_of(call)
        assert user is not None  # noqa: S101 - it has just been there
        return await account_page(call, user, done="Linked: you can sign in with it from now on.")
    invitation = sent.cookie(request.scope, CODE_COOKIE) if flow.next == "/invite" else None
    if invitation is None:
        user_id, to = await service.user_of(call.platform, claims), flow.next
    else:
        user_id, to = await service.join(call, claims, invitation, AWAY), "/invite"
    return await enter(request, call, user_id, to, by=(claims.issuer, claims.subject))


def _still_there(call: Call, flow: Flow) -> str:
    """The person who has begun to link is the one who is signed in."""
    mine = None if call.caller is None else call.caller.user_id
    if mine is None or mine != flow.user_id:
        raise Unauthenticated("you are not signed in any more", hint="begin again")
    return mine


def _provider(call: Call) -> Provider:
    if call.platform.provider is None:
        raise NotFound(
            "this platform has no identity provider", hint="the settings oidc_… name one"
        )
    return call.platform.provider
