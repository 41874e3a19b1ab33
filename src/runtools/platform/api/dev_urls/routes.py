"""``/v1/sandboxes/{ref}/urls``: addresses of ports, who may enter, and links that open them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from runtools.errors import IdempotencyMismatch, NotFound, SandboxStopped
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.dev_urls import service
from runtools.platform.kit.http import one
from runtools.sdk.shapes.dev_urls import (
    DevUrl,
    DevUrlAccess,
    DevUrlLink,
    DevUrlLinkCreate,
    DevUrls,
    OrgDevUrls,
)
from runtools.sdk.shapes.events import Envelope

router = APIRouter(tags=["dev-urls"])

_URLS = "/v1/sandboxes/{ref}/urls"
_ORGS = "/v1/dev-urls"

Port = Annotated[int, Path(ge=1, le=65535)]


@router.get(_URLS, **document.route(Envelope[DevUrls], NotFound))
async def list_(request: Request, ref: str) -> Response:
    """The addresses of a sandbox: their pattern, who may enter, and the ports with choices of their own."""
    call = call_of(request)
    return call.answer(one(await service.look(call, ref)))


@router.post(
    _URLS,
    **document.route(
        Envelope[DevUrls], NotFound, SandboxStopped, IdempotencyMismatch, takes=DevUrlAccess
    ),
)
async def choose(request: Request, ref: str) -> Response:
    """Choose who may enter a port, or all ports without a choice of their own."""
    call = call_of(request)
    return call.answer(one(await service.choose(call, ref, call.take(DevUrlAccess))))


@router.delete(_URLS, **document.route(Envelope[DevUrls], NotFound, IdempotencyMismatch))
async def forget_all(request: Request, ref: str) -> Response:
    """Take every choice about a sandbox back, and end all links to it."""
    call = call_of(request)
    return call.answer(one(await service.forget(call, ref, None)))


@router.get(_URLS + "/{port}", **document.route(Envelope[DevUrl], NotFound))
async def get(request: Request, ref: str, port: Port) -> Response:
    """The address of a port, and who may enter. Nothing need listen there yet."""
    call = call_of(request)
    return call.answer(one(await service.look_at(call, ref, port)))


@router.delete(
    _URLS + "/{port}", **document.route(Envelope[DevUrls], NotFound, IdempotencyMismatch)
)
async def forget(request: Request, ref: str, port: Port) -> Response:
    """Take the choice about a port back, and end all links to it."""
    call = call_of(request)
    return call.answer(one(await service.forget(call, ref, port)))


@router.post(
    _URLS + "/{port}/links",
    **document.route(
        Envelope[DevUrlLink],
        NotFound,
        SandboxStopped,
        IdempotencyMismatch,
        status=201,
        takes=DevUrlLinkCreate,
    ),
)
async def create_link(request: Request, ref: str, port: Port) -> Response:
    """Make an address that opens as it stands, for a while, and no longer than its maker may enter.

    It is shown in this answer only; a repeat makes another one in its place.
    """
    call = call_of(request)
    wanted = call.take(DevUrlLinkCreate)
    return call.answer(
        one(await service.link(call, ref, port, wanted.ttl_seconds)), 201, keep=False
    )


@router.delete(
    _URLS + "/{port}/links", **document.route(Envelope[DevUrl], NotFound, IdempotencyMismatch)
)
async def end_links(request: Request, ref: str, port: Port) -> Response:
    """End all links to a port, and browsers that came by them, within seconds."""
    call = call_of(request)
    return call.answer(one(await service.end_links(call, ref, port)))


@router.get(_ORGS, **document.route(Envelope[OrgDevUrls]))
async def of_org(request: Request) -> Response:
    """What the org has chosen for sandboxes without a choice of their own."""
    call = call_of(request)
    return call.answer(one(OrgDevUrls(access=await service.of_org(call))))


@router.post(_ORGS, **document.route(Envelope[OrgDevUrls], IdempotencyMismatch, takes=OrgDevUrls))
async def choose_for_org(request: Request) -> Response:
    """Choose for all sandboxes of the org without a choice of their own."""
    call = call_of(request)
    wanted = call.take(OrgDevUrls)
    await service.choose_for_org(call, wanted)
    return call.answer(one(wanted))
