"""``/v1/api-keys`` and ``/v1/me``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.keys.store import Key
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.projects import store as projects
from runtools.platform.kit.http import many, one
from runtools.sdk.shapes.account import ApiKey, ApiKeyCreate, Me
from runtools.sdk.shapes.events import Envelope

router = APIRouter(prefix="/v1", tags=["account"])


@router.get("/me", **document.route(Envelope[Me]))
async def me(request: Request) -> Response:
    """Which org and key this request is counted to."""
    call = call_of(request)
    name = await call.platform.db.read(orgs.name_of, call.org)
    project = await call.platform.db.read(projects.find, call.org, None)
    seen = Me(org_id=call.org, org_name=name, key_id=call.key.id, default_project_id=project)
    return call.answer(one(seen))


@router.get("/api-keys", **document.route(Envelope[list[ApiKey]]))
async def list_(request: Request) -> Response:
    """The org's keys, revoked ones too, newest first."""
    call = call_of(request)
    return call.answer(many([_shown(key) for key in await call.platform.keys.all_of(call.org)]))


@router.post(
    "/api-keys",
    **document.route(Envelope[ApiKey], IdempotencyMismatch, status=201, takes=ApiKeyCreate),
)
async def create(request: Request) -> Response:
    """Make a key. It is shown in this answer only: a repeat shows its record without it."""
    call = call_of(request)
    wanted = call.take(ApiKeyCreate)
    key, secret = await call.platform.keys.make(call.org, wanted.name, call.op)
    return call.answer(one(_shown(key, secret)), 201, keep=False)


@router.delete("/api-keys/{key_id}", **document.route(Envelope[ApiKey], NotFound))
async def revoke(request: Request, key_id: str) -> Response:
    """Make a key useless, everywhere within a second."""
    call = call_of(request)
    return call.answer(one(_shown(await call.platform.keys.revoke(call.org, key_id))))


def _shown(key: Key, secret: str | None = None) -> ApiKey:
    return ApiKey(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        key=secret,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
    )
