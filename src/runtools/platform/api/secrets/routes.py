"""``/v1/secrets``. No answer but that of ``reveal`` holds a value."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from runtools.errors import IdempotencyMismatch, NotFound, WrongMasterKey
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut
from runtools.platform.api.secrets import service, store
from runtools.platform.api.secrets.look import look, said
from runtools.platform.kit import http
from runtools.platform.kit.http import one
from runtools.sdk.shapes import secrets as shapes
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.secrets import RevealedSecret, Secret, SecretRotate, SecretSet

router = APIRouter(prefix="/v1/secrets", tags=["secrets"])


class Secrets(Page):
    """Which secrets, and where the list goes on."""

    category: shapes.Category | None = Field(None)


@router.post(
    "",
    **document.route(
        Envelope[Secret], IdempotencyMismatch, WrongMasterKey, status=service.MADE, takes=SecretSet
    ),
)
async def set_(request: Request) -> Response:
    """Make a secret, or give the one of that name another value (what is left out stays)."""
    call = call_of(request)
    wanted = call.take(SecretSet)
    call.subject = wanted.name
    secret, _ = await service.put(call, wanted)
    return call.answer(look(secret), service.MADE)


@router.get("", **document.route(Envelope[list[Secret]]))
async def list_(request: Request, asked: Annotated[Secrets, Query()]) -> Response:
    """The org's secrets by name, without their values."""
    call = call_of(request)
    after = "" if asked.cursor is None else http.position(asked.cursor, str)[0]
    found = await call.platform.db.read(
        store.page, call.org, asked.category, after, asked.limit + 1
    )
    shown, more = cut(found, asked.limit, lambda secret: http.cursor(secret.name))
    return call.page([look(secret) for secret in shown], more)


@router.get("/{name}", **document.route(Envelope[Secret], NotFound))
async def get(request: Request, name: str) -> Response:
    """One secret without its value."""
    call = call_of(request)
    return call.answer(look(await service.get(call, name)))


@router.patch(
    "/{name}",
    **document.route(
        Envelope[Secret], NotFound, IdempotencyMismatch, WrongMasterKey, takes=SecretRotate
    ),
)
async def rotate(request: Request, name: str) -> Response:
    """Give a secret that exists another value. Sandboxes that were given the old one keep it."""
    call = call_of(request)
    call.subject = name
    return call.answer(look(await service.rotate(call, name, call.take(SecretRotate))))


@router.post("/{name}/reveal", **document.route(Envelope[RevealedSecret], NotFound, WrongMasterKey))
async def reveal(request: Request, name: str) -> Response:
    """The value. The audit log says who saw it."""
    call = call_of(request)
    call.subject = name
    secret, value = await service.reveal(call, name)
    shown = RevealedSecret(**said(secret), value=value)
    return call.answer(one(shown), service.SHOWED, keep=False)


@router.delete("/{name}", **document.route(Envelope[Secret], NotFound, IdempotencyMismatch))
async def delete(request: Request, name: str) -> Response:
    """Delete a secret. Sandboxes that were given it keep it."""
    call = call_of(request)
    call.subject = name
    return call.answer(look(await service.remove(call, name)))
