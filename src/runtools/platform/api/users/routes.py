"""``/v1/people``: everybody who has an account, for the operator."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from runtools.errors import Conflict, Forbidden, IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut, mark, place
from runtools.platform.api.resets import service as resets
from runtools.platform.api.users import service, store
from runtools.platform.api.users.look import shown
from runtools.platform.kit.http import one
from runtools.sdk.shapes.base import Request as Asked
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.people import Account, AccountChange, ResetLink

router = APIRouter(prefix="/v1/people", tags=["people"])

_DONE = 200
_REFUSED = (NotFound, Forbidden, Conflict, IdempotencyMismatch)


class Closing(Asked):
    """How an account is closed."""

    revoke_keys: bool = Field(False, description="the API keys that the person made end, too")


@router.get("", **document.route(Envelope[list[Account]]))
async def list_(request: Request, asked: Annotated[Page, Query()]) -> Response:
    """Everybody who has an account, or had one, who came first first."""
    call = call_of(request)
    found = await call.platform.db.read(store.page, place(asked.cursor), asked.limit + 1)
    users, more = cut(found, asked.limit, lambda user: mark(user.created_at, user.id))
    return call.page([one(shown(user)) for user in users], more)


@router.patch("/{user_id}", **document.route(Envelope[Account], *_REFUSED, takes=AccountChange))
async def set_operator(request: Request, user_id: str) -> Response:
    """Give somebody the operator's right, or take it back; open sessions have it so within a second."""
    call = call_of(request)
    call.subject = user_id
    wanted = call.take(AccountChange)
    user = await service.set_operator(
        call, user_id, operator=wanted.operator, revoke_keys=wanted.revoke_keys
    )
    return call.answer(one(shown(user)))


@router.post("/{user_id}/reset", **document.route(Envelope[ResetLink], *_REFUSED, status=201))
async def reset(request: Request, user_id: str) -> Response:
    """A link by which the person sets another password, once, within a day."""
    call = call_of(request)
    call.subject = user_id
    link, until = await resets.create(call, user_id, None)
    made = ResetLink(user_id=user_id, link=link, expires_at=until)
    return call.answer(one(made), 201, keep=False)


@router.delete("/{user_id}", **document.route(Envelope[Account], *_REFUSED))
async def close(request: Request, user_id: str, how: Annotated[Closing, Query()]) -> Response:
    """Close an account; what the person made stays with the org. The last Admin or operator is refused."""
    call = call_of(request)
    call.subject = user_id
    service.check_operator(call)
    user = await service.close(call, user_id, _DONE, revoke_keys=how.revoke_keys)
    return call.answer(one(shown(user)), _DONE)
