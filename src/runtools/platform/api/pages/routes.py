"""The pages of signing in and out, and of a person's account."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import RunToolsError
from runtools.platform.api.audit import store as audit
from runtools.platform.api.audit.lines import line_of
from runtools.platform.api.callers import sent
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.identities import store as identities
from runtools.platform.api.members import store as members
from runtools.platform.api.pages import render
from runtools.platform.api.sessions import store as sessions
from runtools.platform.api.sessions.service import Shown
from runtools.platform.api.sessions.store import Session
from runtools.platform.api.signin import service as signin
from runtools.platform.api.users import store as users
from runtools.platform.api.users.store import User
from runtools.platform.core.access import Caller
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction

router = APIRouter(tags=["pages"], include_in_schema=False)

# Where a page may send a person on to: nothing that a link could name is believed.
_NEXT = frozenset({"/account", "/login", "/invite", "/open"})


def onward(wanted: str | None) -> str:
    """Where to go on, if that is a page of ours; else to the account."""
    return wanted if wanted in _NEXT else "/account"


def provider_name(call: Call) -> str | None:
    """What the identity provider is called, if there is one."""
    return None if call.platform.provider is None else call.platform.provider.name


async def user_of(call: Call) -> User | None:
    """The person who is signed in here."""
    if call.caller is None or call.caller.user_id is None:
        return None
    return await call.platform.db.read(users.find, call.caller.user_id)


async def enter(
    request: Request,
    call: Call,
    user_id: str,
    to: str,
    *,
    proven: str | None = None,
    by: Shown | None = None,
) -> Response:
    """Sign the person in at this browser, and go on to a page; ``proven``, ``by``: as for `Sessions.open`.

    Whatever session the browser had before ends: nobody goes on in one that somebody else has begun.
    """
    platform, before = call.platform, call.caller
    label = render.browser(http.header(request.scope, b"user-agent"))

    def told(conn: Transaction, session: Session) -> None:
        if before is not None:
            _left(conn, request, call, before)
        call.subject, call.line_org, call.entering = session.id, session.org_id, user_id
        call.tell(conn, render.AWAY)

    _, secret = await platform.sessions.open(
        user_id, "browser", label, call.source, proven=proven, by=by, told=told
    )
    if before is not None:
        platform.door.forget(before.digest)
    call.caller = await platform.door.admit(secret)
    seconds = platform.settings.session_days * 86_400
    return render.with_cookie(render.away(to), sent.SESSION_COOKIE, secret, seconds)


def _left(conn: Transaction, request: Request, call: Call, before: Caller) -> None:
    """End the session that the browser had; the log of the org that it acted in has a line of that."""
    if before.user_id is None or sessions.end(conn, before.user_id, before.id) is None:
        return
    line = replace(line_of(call, request.scope, render.AWAY), action="pages.sign_out")
    own = replace(line, org_id=before.org_id, actor=before.actor, resource=before.id)
    audit.add(conn, [own])


@router.get("/pages/style.css")
async def style(request: Request) -> Response:
    """How pages look."""
    call_of(request)
    return render.file("style.css")


@router.get("/pages/code.js")
async def code(request: Request) -> Response:
    """What takes a code out of the address."""
    call_of(request)
    return render.file("code.js")


@router.get("/signin")
async def signin_page(request: Request) -> Response:
    """Sign in."""
    call, to = call_of(request), onward(request.query_params.get("next"))
    if await user_of(call) is not None:
        return render.away(to)
    return signin_page_of(request, call, to)


@router.post("/signin", name="sign_in")
async def sign_in(request: Request) -> Response:
    """Sign in with address and password."""
    call = call_of(request)
    form = render.fields(call)
    to, email = onward(form.get("next")), form.get("email", "").strip().lower()[:254]
    try:
        user = await signin.by_password(
            call.platform, email, form.get("password", "")[:1000], call.source
        )
        return await enter(request, call, user.id, to, proven=user.password)
    except RunToolsError as error:
        call.failed = error.code
        return signin_page_of(request, call, to, email=email, error=error)


@router.post("/signout", name="sign_out")
async def sign_out(request: Request) -> Response:
    """End this browser's session."""
    call = call_of(request)
    to = onward(render.fields(call).get("next"))
    call.did_nothing = call.caller is None
    if call.caller is not None and call.caller.user_id is not None:
        call.subject = call.caller.id
        await call.platform.sessions.end(call.caller.user_id, call.caller.id)
    return render.without_cookie(
        render.away("/signin" if to == "/account" else to), sent.SESSION_COOKIE
    )


@router.get("/account")
async def account(request: Request) -> Response:
    """Who is signed in."""
    call = call_of(request)
    user = await user_of(call)
    if user is None:
        return render.away("/signin")
    return await account_page(call, user)


async def account_page(call: Call, user: User, *, status: int = 200, **values: Any) -> Response:
    """The page of a person's account."""
    db = call.platform.db
    shown = {"error": None, "done": None, "provider": provider_name(call)} | values
    shown |= {
        "user": user,
        "places": await db.read(members.places, user.id),
        "identities": await db.read(identities.all_of, user.id),
        "url": call.platform.public_url,
    }
    return render.page("account", shown, status=status)


def signin_page_of(
    request: Request, call: Call, to: str, *, email: str = "", error: RunToolsError | None = None
) -> Response:
    """The page of signing in."""
    keeps = sent.keeps_cookies(request.scope, call.platform.settings.public_url)
    values = {
        "next": to,
        "email": email,
        "keeps": keeps,
        "provider": provider_name(call),
        "error": None if error is None else render.said(error),
    }
    return render.page("signin", values, status=200 if error is None else error.status)
