"""``/v1/hosts``, ``/v1/disk`` and ``/v1/prune``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from runtools.errors import HostUnavailable, IdempotencyMismatch
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.guests import store as guests
from runtools.platform.api.hosts import service
from runtools.platform.kit.http import many, one
from runtools.sdk.shapes.base import Request as Asked
from runtools.sdk.shapes.events import Envelope, HostView
from runtools.sdk.shapes.sandboxes import DiskUse, Pruned

router = APIRouter(prefix="/v1", tags=["hosts"])


class Prune(Asked):
    """What `POST /v1/prune` takes: what may go."""

    ended: bool = Field(True, description="disks of ended sandboxes, kept for recovery")
    warm: bool = Field(True, description="warm snapshots; they are made again when needed")


@router.get("/hosts", **document.route(Envelope[list[HostView]]))
async def list_(request: Request) -> Response:
    """The machines that run sandboxes; one that does not answer is shown as it last was."""
    call = call_of(request)
    return call.answer(many(await service.views(call.platform)))


@router.get("/disk", **document.route(Envelope[DiskUse], HostUnavailable))
async def disk(request: Request) -> Response:
    """What takes how much room."""
    call = call_of(request)
    return call.answer(one(await service.disk_use(call.platform)))


@router.post(
    "/prune",
    **document.route(Envelope[Pruned], HostUnavailable, IdempotencyMismatch, takes=Prune),
)
async def prune(request: Request) -> Response:
    """Free room: disks kept for recovery, and warm snapshots."""
    call = call_of(request)
    wanted = call.take(Prune)
    await call.begin()
    done = await service.prune(call.platform, ended=wanted.ended, warm=wanted.warm)
    if wanted.ended:
        now = call.platform.clock.now()
        await call.platform.db.write(guests.forget_ended, now)
    return call.answer(one(done))
