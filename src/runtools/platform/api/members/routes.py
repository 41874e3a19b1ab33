"""``/v1/members``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from runtools.errors import Conflict, IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut, mark, place
from runtools.platform.api.members import service, store
from runtools.platform.api.resets import service as resets
from runtools.platform.kit.http import one
from runtools.sdk.shapes.base import Request as Asked
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.people import Member, MemberChange, ResetLink

router = APIRouter(prefix="/v1/members", tags=["members"])


class Removal(Asked):
    """How a member goes."""

    revoke_keys: bool = Field(
        False, description="the API and SSH keys that the member made end, too"
    )


@router.get("", **document.route(Envelope[list[Member]]))
async def list_(request: Request, asked: Annotated[Page, Query()]) -> Response:
    """The people in the org, who came first first."""
    call = call_of(request)
    after = place(asked.cursor)
    found = await call.platform.db.read(store.page, call.org, after, asked.limit + 1)
    shown, more = cut(found, asked.limit, lambda member: mark(member.joined_at, member.user_id))
    return call.page([one(_shown(member)) for member in shown], more)


@router.patch(
    "/{user_id}",
    **document.route(Envelope[Member], NotFound, Conflict, IdempotencyMismatch, takes=MemberChange),
)
async def set_role(request: Request, user_id: str) -> Response:
    """Give a member another role; open sessions have it within a second."""
    call = call_of(request)
    role = call.take(MemberChange).role
    call.subject = user_id
    return call.answer(_look(await service.set_role(call, user_id, role, _look)))


@router.delete(
    "/{user_id}", **document.route(Envelope[Member], NotFound, Conflict, IdempotencyMismatch)
)
async def remove(request: Request, user_id: str, how: Annotated[Removal, Query()]) -> Response:
    """Take a member out of the org; open sessions lose it within a second."""
    call = call_of(request)
    call.subject = user_id
    done = await service.remove(call, user_id, _look, revoke_keys=how.revoke_keys)
    return call.answer(_look(done))


@router.post(
    "/{user_id}/reset",
    **document.route(Envelope[ResetLink], NotFound, Conflict, IdempotencyMismatch, status=201),
)
async def reset(request: Request, user_id: str) -> Response:
    """A link by which a member of this org alone sets another password, once, within a day."""
    call = call_of(request)
    call.subject = user_id
    link, until = await resets.create(call, user_id, call.org)
    made = ResetLink(user_id=user_id, link=link, expires_at=until)
    return call.answer(one(made), 201, keep=False)


def _look(member: store.Member) -> bytes:
    return one(_shown(member))


def _shown(member: store.Member) -> Member:
    return Member.model_validate({name: getattr(member, name) for name in Member.model_fields})
