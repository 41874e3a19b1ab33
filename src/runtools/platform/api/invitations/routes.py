"""``/v1/invitations``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import Conflict, IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.invitations import service, store
from runtools.platform.api.invitations.look import shown
from runtools.platform.api.lists import Page, cut, mark, place
from runtools.platform.api.orgs.look import shown as shown_org
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.people import Invitation, InvitationAccept, InvitationCreate, Org

router = APIRouter(prefix="/v1/invitations", tags=["invitations"])

_ACCEPTED = 200


@router.post(
    "",
    **document.route(Envelope[Invitation], IdempotencyMismatch, status=201, takes=InvitationCreate),
)
async def create(request: Request) -> Response:
    """Invite somebody. The link is shown in this answer only: a repeat shows the record without it."""
    call = call_of(request)
    made, code = await service.create(call, call.take(InvitationCreate))
    link = None if code is None else service.link(call.platform, code)
    now = call.platform.clock.now()
    return call.answer(one(shown(made, now, link)), 201, keep=False)


@router.get("", **document.route(Envelope[list[Invitation]]))
async def list_(request: Request, asked: Annotated[Page, Query()]) -> Response:
    """The org's invitations, the latest first, and what became of them."""
    call = call_of(request)
    before, now = place(asked.cursor), call.platform.clock.now()
    found = await call.platform.db.read(store.page, call.org, before, asked.limit + 1)
    invitations, more = cut(found, asked.limit, lambda one: mark(one.created_at, one.id))
    return call.page([one(shown(invitation, now)) for invitation in invitations], more)


@router.delete(
    "/{invitation_id}", **document.route(Envelope[Invitation], NotFound, IdempotencyMismatch)
)
async def revoke(request: Request, invitation_id: str) -> Response:
    """Take an invitation back; one that was accepted stays so."""
    call = call_of(request)
    done = await service.revoke(call, invitation_id)
    return call.answer(one(shown(done, call.platform.clock.now())))


@router.post("/accept", **document.route(Envelope[Org], NotFound, Conflict, takes=InvitationAccept))
async def accept(request: Request) -> Response:
    """Come into an org by an invitation's code, as the person who is signed in, and act in it."""
    call = call_of(request)
    code = call.take(InvitationAccept).code
    place = await service.accept(call, code, call.person, _ACCEPTED)
    return call.answer(one(shown_org(place, place.org_id)), _ACCEPTED)
