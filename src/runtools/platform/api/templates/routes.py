"""``/v1/templates``: versions, builds and their logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, cast

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import (
    BuildFailed,
    Conflict,
    HostUnavailable,
    IdempotencyMismatch,
    NotFound,
    TemplateInUse,
)
from runtools.platform.api import document
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.templates import service
from runtools.platform.api.templates.rules import shown
from runtools.platform.api.templates.store import Version
from runtools.platform.kit import sse
from runtools.platform.kit.http import many, one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.templates import BuildLine, Template, TemplateBuild

router = APIRouter(prefix="/v1/templates", tags=["templates"])

Number = Annotated[int | None, Query(ge=1, le=2**31 - 1, alias="version")]


@router.get("", **document.route(Envelope[list[Template]]))
async def list_(request: Request) -> Response:
    """The newest version of every template, the org's own before the platform's, ready or not."""
    call = call_of(request)
    return call.answer(many([_view(call, version) for version in await service.newest(call)]))


@router.get("/{slug}", **document.route(Envelope[Template], NotFound))
async def get(request: Request, slug: str) -> Response:
    """The newest version of a template, ready or not."""
    call = call_of(request)
    return call.answer(one(_view(call, await service.pick(call, slug))))


@router.get("/{slug}/versions", **document.route(Envelope[list[Template]], NotFound))
async def versions(request: Request, slug: str) -> Response:
    """Every version of a template that is still there, newest first."""
    call = call_of(request)
    found = await service.versions(call, slug)
    return call.answer(many([_view(call, version) for version in found]))


@router.post(
    "/{slug}/builds",
    **document.route(
        Envelope[Template],
        Conflict,
        BuildFailed,
        HostUnavailable,
        IdempotencyMismatch,
        status=201,
        takes=TemplateBuild,
    ),
)
async def build(request: Request, slug: str) -> Response:
    """Begin the next version; its log tells how it goes."""
    call = call_of(request)
    version = await service.build(call, slug, call.take(TemplateBuild))
    return call.answer(one(_view(call, version)), 201)


@router.get("/{slug}/logs", **document.route(None, NotFound, streams="text/event-stream"))
async def logs(
    request: Request,
    slug: str,
    number: Number = None,
    after: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """A build's log: events `line` with a BuildLine, and at last `end` with the Template."""
    call = call_of(request)
    version = await service.pick(call, slug, number, own=True)
    start = sse.resume_point(request.scope, after) or 0
    return sse.EventStream(_lines(call, version, start))


@router.delete(
    "/{slug}",
    **document.route(
        Envelope[list[Template]],
        NotFound,
        TemplateInUse,
        HostUnavailable,
        IdempotencyMismatch,
    ),
)
async def delete(request: Request, slug: str, number: Number = None) -> Response:
    """Delete one version, or all, ending their builds; refused while sandboxes or snapshots stand on it."""
    call = call_of(request)
    gone = await service.drop(call, slug, number)
    return call.answer(many([_view(call, version) for version in gone]))


async def _lines(call: Call, version: Version, after: int) -> AsyncGenerator[sse.Event, None]:
    host = call.platform.hosts.port(version.host_id)
    log = cast("AsyncGenerator[BuildLine, None]", host.build_log(version.id, after))
    async with aclosing(log):
        async for line in log:
            yield sse.Event("line", one(line), line.n)
    ended = await service.ended(call.platform, version)
    yield sse.Event("end", one(_view(call, ended)))


def _view(call: Call, version: Version) -> Template:
    return shown(version, call.platform.settings.default_template, call.org)
