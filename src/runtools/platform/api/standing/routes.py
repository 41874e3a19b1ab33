"""``/v1/standing-sandboxes``: which sandbox stands for a slug of a project. They come to be by a deploy."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import Conflict, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.definitions import service
from runtools.platform.api.definitions.tables import Row
from runtools.platform.api.lists import InProject, ProjectRef
from runtools.platform.kit.http import one
from runtools.sdk.shapes.definitions import SandboxDefinition
from runtools.sdk.shapes.deploys import StandingSandbox
from runtools.sdk.shapes.events import Envelope

router = APIRouter(prefix="/v1/standing-sandboxes", tags=["standing"])


@router.get("", **document.route(Envelope[list[StandingSandbox]], NotFound))
async def list_(request: Request, asked: Annotated[InProject, Query()]) -> Response:
    """The org's standing sandboxes by slug."""
    call = call_of(request)
    rows, more = await service.page(call, "sandbox", asked.project_id, asked.cursor, asked.limit)
    return call.page([one(_standing(row)) for row in rows], more)


@router.get("/{ref}", **document.route(Envelope[StandingSandbox], NotFound, Conflict))
async def get(request: Request, ref: str, project: ProjectRef = None) -> Response:
    """A standing sandbox by slug: its definition, and the sandbox that it is now."""
    call = call_of(request)
    return call.answer(one(_standing(await service.find(call, "sandbox", ref, project))))


def _standing(row: Row) -> StandingSandbox:
    said = SandboxDefinition.model_validate(row.says)
    values = {**service.told(row), "sandbox_id": row.sandbox_id, "definition": said}
    return StandingSandbox.model_validate(values)
