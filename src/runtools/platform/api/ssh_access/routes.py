"""``/v1/sandboxes/{ref}/ssh``: where a sandbox is reached by SSH, and passes for keys."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import (
    Conflict,
    DeadlineExceeded,
    IdempotencyMismatch,
    NotFound,
    SandboxStopped,
)
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.ssh_access import service
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.ssh_access import SshAccess, SshAccessCreate

router = APIRouter(prefix="/v1/sandboxes/{ref}/ssh", tags=["ssh-access"])


@router.get("", **document.route(Envelope[SshAccess], NotFound))
async def get(request: Request, ref: str) -> Response:
    """Where it is reached by SSH, and the host keys of the gateway that stands there."""
    call = call_of(request)
    return call.answer(one(await service.look(call, ref)))


@router.post(
    "",
    **document.route(
        Envelope[SshAccess],
        NotFound,
        Conflict,
        SandboxStopped,
        DeadlineExceeded,
        IdempotencyMismatch,
        status=201,
        takes=SshAccessCreate,
    ),
)
async def create(request: Request, ref: str) -> Response:
    """Let a public key into this sandbox, for as long as the caller may: no longer than that."""
    call = call_of(request)
    return call.answer(one(await service.give_pass(call, ref, call.take(SshAccessCreate))), 201)
