"""The pages on which a person lets a command line in."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import RunToolsError
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.logins import service
from runtools.platform.api.logins.store import Login
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.pages import render
from runtools.platform.api.pages.routes import user_of
from runtools.platform.api.users.store import User

router = APIRouter(tags=["pages"], include_in_schema=False)

_SIGN_IN = "/signin?next=/login"


@router.get("/login")
async def login_page(request: Request) -> Response:
    """A field for the code."""
    call = call_of(request)
    user = await user_of(call)
    return render.away(_SIGN_IN) if user is None else await _shown(call, user)


@router.post("/login", name="look_at_login")
async def look(request: Request) -> Response:
    """Which command line shows that code."""
    call = call_of(request)
    user = await user_of(call)
    call.did_nothing = True
    if user is None:
        return render.away(_SIGN_IN)
    code = render.fields(call).get("code", "")[:20]
    try:
        login = await service.look(call, code)
    except RunToolsError as error:
        return await _shown(call, user, error=error)
    return await _shown(call, user, login=login, code=code.strip().upper())


@router.post("/login/answer", name="answer_login")
async def answer(request: Request) -> Response:
    """Let it in, or never."""
    call = call_of(request)
    user = await user_of(call)
    if user is None:
        call.did_nothing = True
        return render.away(_SIGN_IN)
    form = render.fields(call)
    try:
        if form.get("answer") != "yes":
            await service.refuse(call, form.get("code", ""))
            return await _shown(call, user, done="Refused")
        call.subject = (await service.approve(call, form.get("code", ""))).id
    except RunToolsError as error:
        call.failed = error.code
        return await _shown(call, user, error=error)
    return await _shown(call, user, done="Your command line is in")


async def _shown(
    call: Call,
    user: User,
    *,
    login: Login | None = None,
    code: str = "",
    done: str | None = None,
    error: RunToolsError | None = None,
) -> Response:
    org_id = call.who.org_id
    values = {
        "user": user,
        "org": None if org_id is None else await call.platform.db.read(orgs.name_of, org_id),
        "login": login,
        "code": code,
        "done": done,
        "error": None if error is None else render.said(error),
    }
    return render.page("login", values, status=200 if error is None else error.status)
