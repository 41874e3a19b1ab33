"""``/v1/orgs`` and ``/v1/org``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import Conflict, IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.invitations import service as invitations
from runtools.platform.api.invitations.look import shown as shown_invitation
from runtools.platform.api.members import service as members
from runtools.platform.api.orgs import service
from runtools.platform.api.orgs.look import shown
from runtools.platform.kit.http import many, one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.people import Org, OrgChange, OrgCreate, OrgCreated

router = APIRouter(prefix="/v1", tags=["orgs"])


@router.get("/orgs", **document.route(Envelope[list[Org]]))
async def list_(request: Request) -> Response:
    """The orgs that the caller is in, and which one it acts in now."""
    call = call_of(request)
    current = call.who.org_id
    return call.answer(many([shown(place, current) for place in await service.all_of(call)]))


@router.post(
    "/orgs",
    **document.route(Envelope[OrgCreated], IdempotencyMismatch, status=201, takes=OrgCreate),
)
async def create(request: Request) -> Response:
    """Make an org, for the operator. A person is its first Admin, or invites somebody to be."""
    call = call_of(request)
    made = await service.create(call, call.take(OrgCreate))
    invitation = None
    if made.invitation is not None:
        link = None if made.code is None else invitations.link(call.platform, made.code)
        invitation = shown_invitation(made.invitation, call.platform.clock.now(), link)
    org = OrgCreated(**dict(shown(made.place, call.who.org_id)), invitation=invitation)
    return call.answer(one(org), 201, keep=False)


@router.post("/orgs/{org_id}/switch", **document.route(Envelope[Org], NotFound))
async def switch(request: Request, org_id: str) -> Response:
    """Act in another of the person's orgs from now on, in this session."""
    call = call_of(request)
    return call.answer(one(shown(await service.switch(call, org_id), org_id)))


@router.get("/org", **document.route(Envelope[Org]))
async def get(request: Request) -> Response:
    """The org that the caller acts in."""
    call = call_of(request)
    return call.answer(one(shown(await service.current(call), call.org)))


@router.patch("/org", **document.route(Envelope[Org], IdempotencyMismatch, takes=OrgChange))
async def rename(request: Request) -> Response:
    """Give it another name."""
    call = call_of(request)
    place = await service.rename(call, call.take(OrgChange).name)
    return call.answer(one(shown(place, call.org)))


@router.post("/org/leave", **document.route(Envelope[Org], Conflict))
async def leave(request: Request) -> Response:
    """Leave it. Its last Admin cannot."""
    call = call_of(request)
    left = one(shown(await service.current(call), None))
    await members.remove(call, call.person, lambda _: left, revoke_keys=False)
    return call.answer(left)
