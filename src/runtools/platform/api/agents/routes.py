"""``/v1/agents``: what is deployed. Agents come to be by a deploy."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import Conflict, DeployRunning, IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.definitions import service
from runtools.platform.api.definitions.tables import Made, Row
from runtools.platform.api.lists import InProject, ProjectRef
from runtools.platform.kit.http import one
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.deploys import Agent, AgentRollback, AgentVersion
from runtools.sdk.shapes.events import Envelope

router = APIRouter(prefix="/v1/agents", tags=["agents"])


@router.get("", **document.route(Envelope[list[Agent]], NotFound))
async def list_(request: Request, asked: Annotated[InProject, Query()]) -> Response:
    """The org's agents by slug."""
    call = call_of(request)
    rows, more = await service.page(call, "agent", asked.project_id, asked.cursor, asked.limit)
    return call.page([one(_agent(row)) for row in rows], more)


@router.get("/{ref}", **document.route(Envelope[Agent], NotFound, Conflict))
async def get(request: Request, ref: str, project: ProjectRef = None) -> Response:
    """An agent by id or slug, with the version in force."""
    call = call_of(request)
    return call.answer(one(_agent(await service.find(call, "agent", ref, project))))


@router.delete(
    "/{ref}",
    **document.route(Envelope[Agent], NotFound, Conflict, DeployRunning, IdempotencyMismatch),
)
async def delete(request: Request, ref: str, project: ProjectRef = None) -> Response:
    """Delete an agent. The next deploy of files that define it makes it again."""
    call = call_of(request)
    return call.answer(_look(await service.remove(call, "agent", ref, project, _look)))


@router.get("/{ref}/versions", **document.route(Envelope[list[AgentVersion]], NotFound, Conflict))
async def versions(request: Request, ref: str, asked: Annotated[InProject, Query()]) -> Response:
    """Its versions, the newest first: what each says, who deployed it, from which commit."""
    call = call_of(request)
    row = await service.find(call, "agent", ref, asked.project_id)
    made, more = await service.versions(call, row, asked.cursor, asked.limit)
    return call.page([one(_version(row, each)) for each in made], more)


@router.get(
    "/{ref}/versions/{version}", **document.route(Envelope[AgentVersion], NotFound, Conflict)
)
async def get_version(
    request: Request, ref: str, version: str, project: ProjectRef = None
) -> Response:
    """One version, by number or id. It never changes."""
    call = call_of(request)
    row = await service.find(call, "agent", ref, project)
    return call.answer(one(_version(row, await service.version(call, row, version))))


@router.post(
    "/{ref}/rollback",
    **document.route(
        Envelope[Agent],
        NotFound,
        Conflict,
        DeployRunning,
        IdempotencyMismatch,
        takes=AgentRollback,
    ),
)
async def rollback(request: Request, ref: str, project: ProjectRef = None) -> Response:
    """Put another version in force; the next deploy's plan begins from there."""
    call = call_of(request)
    to = call.take(AgentRollback).version
    return call.answer(_look(await service.roll_back(call, "agent", ref, project, to, _look)))


def _look(row: Row) -> bytes:
    return one(_agent(row))


def _agent(row: Row) -> Agent:
    said = AgentDefinition.model_validate(row.says)
    return Agent.model_validate({**service.told(row), "definition": said})


def _version(row: Row, made: Made) -> AgentVersion:
    said = AgentDefinition.model_validate(made.says)
    return AgentVersion.model_validate({**service.told_version(row, made), "definition": said})
