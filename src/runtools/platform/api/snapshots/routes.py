"""``/v1/sandboxes/{ref}/snapshots``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import (
    GuestUnreachable,
    HostUnavailable,
    IdempotencyMismatch,
    IllegalMove,
    NameTaken,
    NotFound,
    QuotaExceeded,
    SandboxStopped,
    SnapshotInUse,
)
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut, mark, place
from runtools.platform.api.snapshots import service
from runtools.platform.api.snapshots.store import Keep
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.sandboxes import Snapshot, SnapshotCreate

router = APIRouter(prefix="/v1/sandboxes/{ref}/snapshots", tags=["snapshots"])

_SHOWN = tuple(Snapshot.model_fields)


@router.post(
    "",
    **document.route(
        Envelope[Snapshot],
        NotFound,
        IllegalMove,
        SandboxStopped,
        NameTaken,
        QuotaExceeded,
        HostUnavailable,
        GuestUnreachable,
        IdempotencyMismatch,
        status=201,
        takes=SnapshotCreate,
    ),
)
async def create(request: Request, ref: str) -> Response:
    """Keep the state of a running or paused sandbox under an id, and a name if one is given."""
    call = call_of(request)
    keep = await service.make(call, ref, call.take(SnapshotCreate))
    return call.answer(one(_shown(keep)), 201)


@router.get("", **document.route(Envelope[list[Snapshot]], NotFound))
async def list_(request: Request, ref: str, page: Annotated[Page, Query()]) -> Response:
    """A sandbox's snapshots, the oldest first; they outlive it."""
    call = call_of(request)
    found = await service.page(call, ref, place(page.cursor), page.limit + 1)
    kept, more = cut(found, page.limit, lambda keep: mark(keep.created_at, keep.id))
    return call.page([one(_shown(keep)) for keep in kept], more)


@router.delete(
    "/{snapshot_ref}",
    **document.route(
        Envelope[Snapshot], NotFound, SnapshotInUse, HostUnavailable, IdempotencyMismatch
    ),
)
async def delete(request: Request, ref: str, snapshot_ref: str) -> Response:
    """Delete a snapshot by id or name."""
    call = call_of(request)
    return call.answer(one(_shown(await service.drop(call, ref, snapshot_ref))))


def _shown(keep: Keep) -> Snapshot:
    return Snapshot.model_validate({name: getattr(keep, name) for name in _SHOWN})
