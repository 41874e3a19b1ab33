"""``/metrics``: numbers about the whole installation, in the form that Prometheus reads."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools.errors import Unauthenticated
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.metrics import service
from runtools.platform.kit import http
from runtools.platform.kit.crypto import digest, same
from runtools.platform.kit.metering import exposition

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics", **document.route(None, streams=("text/plain", "application/openmetrics-text"))
)
async def metrics(request: Request) -> Response:
    """For the operator: the bearer token is the platform's own (docs/observability.md), no API key."""
    call = call_of(request)
    given = http.bearer(request.scope)
    if given is None or not same(digest(given), digest(call.platform.metrics_token)):
        raise Unauthenticated(
            "metrics are read with the platform's metrics token",
            hint="no API key opens them; docs/observability.md says where the token lies",
        )
    found = await service.gather(call.platform)
    data, media_type = exposition(found, request.headers.get("accept", ""))
    return Response(data, headers={"Content-Type": media_type})
