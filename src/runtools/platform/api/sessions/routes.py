"""``/v1/sessions`` and ``/v1/me/password``: where a person is signed in, and by what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import Conflict, Forbidden, NotFound, RateLimited
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut, mark, place
from runtools.platform.api.sessions import store
from runtools.platform.api.signin import service as signin
from runtools.platform.api.users import service as accounts
from runtools.platform.api.users.look import shown
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.people import (
    Account,
    AccountClose,
    PasswordChange,
    Session,
    SessionsEnded,
)

router = APIRouter(prefix="/v1", tags=["sessions"])

_DONE = 200


@router.get("/sessions", **document.route(Envelope[list[Session]]))
async def list_(request: Request, asked: Annotated[Page, Query()]) -> Response:
    """Where the person is signed in, the newest first."""
    call = call_of(request)
    found = await call.platform.sessions.page(call.person, place(asked.cursor), asked.limit + 1)
    sessions, more = cut(found, asked.limit, lambda session: mark(session.created_at, session.id))
    return call.page([one(_shown(session, call.who.id)) for session in sessions], more)


@router.delete("/sessions", **document.route(Envelope[SessionsEnded]))
async def end_others(request: Request) -> Response:
    """Sign out everywhere else."""
    call = call_of(request)
    count = await call.platform.sessions.end_others(
        call.person, call.who.id, lambda conn, count: call.settle(conn, _count(count))
    )
    return call.answer(_count(count))


@router.delete("/sessions/{session_id}", **document.route(Envelope[Session], NotFound))
async def end(request: Request, session_id: str) -> Response:
    """Sign out there; `current` is the session that asks."""
    call = call_of(request)
    wanted = call.who.id if session_id == "current" else session_id

    def look(ended: store.Session) -> bytes:
        return one(_shown(ended, call.who.id))

    ended = await call.platform.sessions.end(
        call.person, wanted, lambda conn, ended: call.settle(conn, look(ended))
    )
    return call.answer(look(ended))


@router.post(
    "/me/password",
    **document.route(Envelope[SessionsEnded], Forbidden, RateLimited, takes=PasswordChange),
)
async def change_password(request: Request) -> Response:
    """Another password. Every other session of the person ends."""
    call = call_of(request)
    wanted = call.take(PasswordChange)
    call.subject = call.person
    return call.answer(
        _count(await signin.change_password(call, wanted.current, wanted.new, _count))
    )


@router.post(
    "/me/close",
    **document.route(Envelope[Account], Forbidden, Conflict, RateLimited, takes=AccountClose),
)
async def close_account(request: Request) -> Response:
    """Close the person's own account. The last Admin of an org and the last operator cannot."""
    call = call_of(request)
    call.subject = call.person
    await signin.show_password(call, call.take(AccountClose).password)
    user = await accounts.close(call, call.person, _DONE, revoke_keys=False)
    return call.answer(one(shown(user)), _DONE)


def _count(ended: int) -> bytes:
    return one(SessionsEnded(ended=ended))


def _shown(session: store.Session, current: str) -> Session:
    return Session(
        id=session.id,
        place=session.place,
        label=session.label,
        source=session.source,
        current=session.id == current,
        created_at=session.created_at,
        seen_at=session.seen_at,
        expires_at=session.expires_at,
    )
