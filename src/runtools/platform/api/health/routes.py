"""``/healthz`` and ``/readyz``: for machines that ask often; no key is needed."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from runtools import __version__
from runtools.errors import Unavailable
from runtools.platform.api import document
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.hosts import service, store
from runtools.platform.api.runs import standing
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope, Health, HostView

router = APIRouter(tags=["health"])


@router.get("/healthz", **document.route(Envelope[Health]))
async def live(request: Request) -> Response:
    """The api answers and its database reads. Nothing else is asked; warnings are the last known."""
    call = call_of(request)
    known = await call.platform.db.read(store.views)
    last = [HostView.model_validate(view) for view in known.values()]
    told = service.warnings(call.platform, last) + await standing.warnings(call.platform)
    return call.answer(one(_health(call, "ok", told)))


@router.get("/readyz", **document.route(Envelope[Health], Unavailable))
async def ready(request: Request) -> Response:
    """A host answers, so sandboxes can be made; else 503 with what stands in the way."""
    call = call_of(request)
    views = await service.views(call.platform)
    told = service.warnings(call.platform, views) + await standing.warnings(call.platform)
    if not any(view.alive for view in views):
        raise Unavailable(
            "no host answers", hint="runtools status shows the parts", details={"warnings": told}
        )
    return call.answer(one(_health(call, "ready", told)))


def _health(call: Call, status: str, warnings: list[str]) -> Health:
    return Health(
        status=status,
        version=__version__,
        install_id=call.platform.install_id,
        warnings=warnings,
    )
