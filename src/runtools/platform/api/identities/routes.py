"""``/v1/me/identities``: by which identities a person can sign in."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import Conflict, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.identities import service, store
from runtools.platform.kit.http import many, one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.people import Identity

router = APIRouter(prefix="/v1/me/identities", tags=["identities"])

_SHOWN = tuple(Identity.model_fields)


@router.get("", **document.route(Envelope[list[Identity]]))
async def list_(request: Request) -> Response:
    """The identities of an identity provider that are linked to the person's account."""
    call = call_of(request)
    return call.answer(many([_shown(found) for found in await service.all_of(call)]))


@router.delete("/{identity_id}", **document.route(Envelope[Identity], NotFound, Conflict))
async def unlink(request: Request, identity_id: str) -> Response:
    """Unlink one. Every other session of the person ends; the only way in stays."""
    call = call_of(request)
    return call.answer(_look(await service.unlink(call, identity_id, _look)))


def _look(identity: store.Identity) -> bytes:
    return one(_shown(identity))


def _shown(identity: store.Identity) -> Identity:
    return Identity.model_validate({name: getattr(identity, name) for name in _SHOWN})
