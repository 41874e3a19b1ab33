"""``/parts/gateway/admissions``: the gateway asks who may enter a dev URL."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.platform.api.calls import call_of
from runtools.platform.api.dev_urls import service
from runtools.platform.core.ports.admitting import Asked
from runtools.platform.kit import http

router = APIRouter(tags=["parts"], include_in_schema=False)


@router.post("/parts/gateway/admissions")
async def admit(request: Request) -> Response:
    """Whether somebody may enter."""
    call = call_of(request)
    call.did_nothing = True
    verdict = await service.admit(call.platform, http.parse(Asked, call.body))
    return call.answer(http.one(verdict), keep=False)
