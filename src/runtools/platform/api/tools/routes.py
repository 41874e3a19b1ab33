"""``/v1/tools``: custom tools that are deployed. Running them is the tools service's, which is to come."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import (
    Conflict,
    DeployRunning,
    IdempotencyMismatch,
    NotFound,
    ToolsUnavailable,
)
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.definitions import service
from runtools.platform.api.definitions.tables import Made, Row
from runtools.platform.api.lists import InProject, ProjectRef
from runtools.platform.kit.http import one
from runtools.sdk.shapes.definitions import ToolDefinition
from runtools.sdk.shapes.deploys import Tool, ToolExecute, ToolVersion, Version
from runtools.sdk.shapes.events import Envelope

router = APIRouter(prefix="/v1/tools", tags=["tools"])


@router.get("", **document.route(Envelope[list[Tool]], NotFound))
async def list_(request: Request, asked: Annotated[InProject, Query()]) -> Response:
    """The org's custom tools by name."""
    call = call_of(request)
    rows, more = await service.page(call, "tool", asked.project_id, asked.cursor, asked.limit)
    return call.page([one(_tool(row)) for row in rows], more)


@router.get("/{ref}", **document.route(Envelope[Tool], NotFound, Conflict))
async def get(request: Request, ref: str, project: ProjectRef = None) -> Response:
    """A tool by id or name. Its code is in its versions."""
    call = call_of(request)
    return call.answer(one(_tool(await service.find(call, "tool", ref, project))))


@router.delete(
    "/{ref}",
    **document.route(Envelope[Tool], NotFound, Conflict, DeployRunning, IdempotencyMismatch),
)
async def delete(request: Request, ref: str, project: ProjectRef = None) -> Response:
    """Delete a tool that no agent of its project names."""
    call = call_of(request)
    return call.answer(_look(await service.remove(call, "tool", ref, project, _look)))


@router.get("/{ref}/versions", **document.route(Envelope[list[Version]], NotFound, Conflict))
async def versions(request: Request, ref: str, asked: Annotated[InProject, Query()]) -> Response:
    """Its versions, the newest first: who deployed each, from which commit."""
    call = call_of(request)
    row = await service.find(call, "tool", ref, asked.project_id)
    made, more = await service.versions(call, row, asked.cursor, asked.limit)
    shown = [Version.model_validate(service.told_version(row, each)) for each in made]
    return call.page([one(each) for each in shown], more)


@router.get(
    "/{ref}/versions/{version}", **document.route(Envelope[ToolVersion], NotFound, Conflict)
)
async def get_version(
    request: Request, ref: str, version: str, project: ProjectRef = None
) -> Response:
    """One version with its code, by number or id. It never changes."""
    call = call_of(request)
    row = await service.find(call, "tool", ref, project)
    return call.answer(one(_version(row, await service.version(call, row, version))))


@router.post(
    "/{ref}/execute",
    **document.route(
        None,
        NotFound,
        Conflict,
        ToolsUnavailable,
        IdempotencyMismatch,
        streams="application/json",
        takes=ToolExecute,
    ),
)
async def execute(request: Request, ref: str, project: ProjectRef = None) -> Response:
    """Call an action. Refused until the platform has its tools service."""
    call = call_of(request)
    wanted = call.take(ToolExecute)
    row = await service.find(call, "tool", ref, project)
    if wanted.action not in row.says["actions"]:
        raise NotFound(
            f"tool {row.slug} has no action {wanted.action!r}",
            hint=f"it has {', '.join(sorted(row.says['actions']))}",
        )
    raise ToolsUnavailable(
        f"tool {row.slug} is deployed, but this platform has no tools service to run it",
        hint="nothing was run; the tool is kept as it is until a release that has one",
        details={"tool": row.slug, "version": row.version},
    )


def _look(row: Row) -> bytes:
    return one(_tool(row))


def _tool(row: Row) -> Tool:
    says = row.says
    return Tool.model_validate(
        {
            **service.told(row),
            "name": says["name"],
            "description": says["description"],
            "actions": sorted(says["actions"]),
            "dependencies": says["source"]["dependencies"],
            "digest": says["source"]["digest"],
        }
    )


def _version(row: Row, made: Made) -> ToolVersion:
    said = ToolDefinition.model_validate(made.says)
    return ToolVersion.model_validate({**service.told_version(row, made), "definition": said})
