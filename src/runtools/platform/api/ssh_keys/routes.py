"""``/v1/ssh-keys``: public keys that may be named where a sandbox is made."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import Conflict, IdempotencyMismatch, NameTaken, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import InProject, cut
from runtools.platform.api.projects import service as projects
from runtools.platform.api.ssh_keys import service, store
from runtools.platform.kit import http
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.ssh_keys import SshKey, SshKeyCreate

router = APIRouter(prefix="/v1/ssh-keys", tags=["ssh-keys"])

_SHOWN = tuple(SshKey.model_fields)


@router.get("", **document.route(Envelope[list[SshKey]], NotFound))
async def list_(request: Request, asked: Annotated[InProject, Query()]) -> Response:
    """The org's keys (of a project) by label."""
    call = call_of(request)
    after = "" if asked.cursor is None else http.position(asked.cursor, str)[0]
    project = await projects.found(call, asked.project_id)
    found = await call.platform.db.read(store.page, call.org, project, after, asked.limit + 1)
    keys, more = cut(found, asked.limit, lambda key: http.cursor(key.label))
    return call.page([one(_shown(key)) for key in keys], more)


@router.post(
    "",
    **document.route(
        Envelope[SshKey],
        NotFound,
        NameTaken,
        Conflict,
        IdempotencyMismatch,
        status=201,
        takes=SshKeyCreate,
    ),
)
async def create(request: Request) -> Response:
    """Register a public key (ed25519, ecdsa, RSA from 2048 bits, and keys of hardware tokens)."""
    call = call_of(request)
    return call.answer(one(_shown(await service.add(call, call.take(SshKeyCreate)))), 201)


@router.get("/{ref}", **document.route(Envelope[SshKey], NotFound))
async def get(request: Request, ref: str) -> Response:
    """One of them, by id or label."""
    call = call_of(request)
    return call.answer(one(_shown(await service.get(call, ref))))


@router.delete("/{ref}", **document.route(Envelope[SshKey], NotFound, IdempotencyMismatch))
async def delete(request: Request, ref: str) -> Response:
    """Remove one. Sandboxes that were given it keep it."""
    call = call_of(request)
    return call.answer(_look(await service.remove(call, ref, _look)))


def _look(key: store.SshKey) -> bytes:
    return one(_shown(key))


def _shown(key: store.SshKey) -> SshKey:
    return SshKey.model_validate({name: getattr(key, name) for name in _SHOWN})
