"""``/v1/api-keys`` and ``/v1/me``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from runtools.errors import Conflict, Forbidden, IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.keys import store
from runtools.platform.api.keys.service import Rights
from runtools.platform.api.keys.store import Key
from runtools.platform.api.lists import InProject, cut, mark, place
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.projects import service as projects
from runtools.platform.api.projects import store as project_store
from runtools.platform.api.users import store as users
from runtools.platform.core import access
from runtools.platform.core.access import Caller
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.http import one
from runtools.sdk.shapes.account import ApiKey, ApiKeyCreate, ApiKeyRotate, Me, Person
from runtools.sdk.shapes.base import Request as Asked
from runtools.sdk.shapes.events import Envelope

router = APIRouter(prefix="/v1", tags=["account"])

_DAYS = {"d": 1, "w": 7, "y": 365}
_MOST_DAYS = 3650


class Revoking(Asked):
    """How a key ends."""

    revoke_made: bool = Field(
        False, description="the keys that it made end, too, and those that these made"
    )


@router.get("/me", **document.route(Envelope[Me]))
async def me(request: Request) -> Response:
    """Who calls, in which org, and what that caller may do there."""
    call = call_of(request)
    return call.answer(one(await call.platform.db.read(_me, call.who)))


@router.get("/api-keys", **document.route(Envelope[list[ApiKey]], NotFound))
async def list_(request: Request, asked: Annotated[InProject, Query()]) -> Response:
    """The org's keys (of a project), revoked ones too, newest first."""
    call = call_of(request)
    before = place(asked.cursor)
    project = await projects.found(call, asked.project_id)
    found = await call.platform.db.read(store.page, call.org, project, before, asked.limit + 1)
    keys, more = cut(found, asked.limit, lambda key: mark(key.created_at, key.id))
    return call.page([one(_shown(key)) for key in keys], more)


@router.post(
    "/api-keys",
    **document.route(
        Envelope[ApiKey], Forbidden, NotFound, IdempotencyMismatch, status=201, takes=ApiKeyCreate
    ),
)
async def create(request: Request) -> Response:
    """Make a key. It is shown in this answer only: a repeat shows its record without it."""
    call = call_of(request)
    wanted = call.take(ApiKeyCreate)
    rights = _rights(call, wanted)

    def named(key: Key) -> None:
        call.subject = key.id

    key, secret = await call.platform.keys.make(call.org, wanted.name, call.op, rights, named)
    return call.answer(one(_shown(key, secret)), 201, keep=False)


@router.post(
    "/api-keys/{key_id}/rotate",
    **document.route(
        Envelope[ApiKey],
        Forbidden,
        NotFound,
        Conflict,
        IdempotencyMismatch,
        status=201,
        takes=ApiKeyRotate,
    ),
)
async def rotate(request: Request, key_id: str) -> Response:
    """Another key with the same name and rights; the old one is useless within a second."""
    call = call_of(request)
    until = _until(call, call.take(ApiKeyRotate).expires_in)
    old = await call.platform.db.read(store.find, call.org, key_id)
    _check_within(call, () if old is None else old.scopes, known=old is not None)
    if old is not None:
        _check_until(call, until or old.expires_at)
    key, secret = await call.platform.keys.rotate(call.org, key_id, call.op, call.actor, until)
    return call.answer(one(_shown(key, secret)), 201, keep=False)


@router.delete("/api-keys/{key_id}", **document.route(Envelope[ApiKey], Forbidden, NotFound))
async def revoke(request: Request, key_id: str, how: Annotated[Revoking, Query()]) -> Response:
    """Make a key useless, everywhere within a second."""
    call = call_of(request)
    key = await call.platform.db.read(store.find, call.org, key_id)
    _check_within(call, () if key is None else key.scopes, known=key is not None)
    done = await call.platform.keys.revoke(call.org, key_id, made=how.revoke_made)
    return call.answer(one(_shown(done)))


def _shown(key: Key, secret: str | None = None) -> ApiKey:
    return ApiKey(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        key=secret,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
        scopes=key.scopes,
        expires_at=key.expires_at,
        project_id=key.project_id,
        created_by=key.created_by,
    )


def _me(conn: Transaction, who: Caller) -> Me:
    user = None if who.user_id is None else users.find(conn, who.user_id)
    return Me(
        kind=who.kind,
        org_id=who.org_id,
        org_name=None if who.org_id is None else orgs.name_of(conn, who.org_id),
        key_id=who.id if who.kind == "key" else None,
        user=None if user is None else Person(id=user.id, email=user.email, name=user.name),
        role=who.role,
        scopes=sorted(who.scopes),
        default_project_id=None
        if who.org_id is None
        else project_store.find(conn, who.org_id, None),
    )


def _rights(call: Call, wanted: ApiKeyCreate) -> Rights:
    if wrong := access.unknown(wanted.scopes):
        scope, near = next(iter(wrong.items()))
        hint = f"did you mean {' or '.join(near)}?" if near else "docs/api.md lists the scopes"
        raise http.wrong_field("scopes", f"there is no scope {scope[:80]!r}", hint=hint)
    _check_within(call, wanted.scopes)
    until = _until(call, wanted.expires_in)
    _check_until(call, until)
    scopes = tuple(set(wanted.scopes))
    return Rights(scopes, until, wanted.project_id, wanted.is_test, call.actor)


def _until(call: Call, expires_in: str | None) -> datetime | None:
    if expires_in is None:
        return None
    days = int(expires_in[:-1]) * _DAYS[expires_in[-1]]
    if days > _MOST_DAYS:
        raise http.wrong_field("expiresIn", "a key expires within ten years, or never")
    return call.platform.clock.now() + timedelta(days=days)


def _check_until(call: Call, until: datetime | None) -> None:
    """No key hands on more time than it has itself."""
    ends = call.who.expires_at if call.who.kind == "key" else None
    if ends is not None and (until is None or until > ends):
        raise Forbidden(
            "that API key would outlive the one that you call with",
            hint="say expiresIn, no later than your key's end, or ask somebody whose key lasts",
            details={"expiresAt": ends.isoformat()},
        )


def _check_within(call: Call, scopes: Iterable[str], *, known: bool = True) -> None:
    """Nobody makes, replaces or ends a key that may do more than the caller."""
    if known and not access.within(access.of_key(scopes), call.who.scopes):
        raise Forbidden(
            "that API key may do more than you",
            hint="name scopes that you have, or ask somebody who has more",
            details={"scopes": sorted(call.who.scopes)},
        )
