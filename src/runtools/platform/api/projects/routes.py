"""``/v1/projects``: groups of an org's things, by id or name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import (
    Conflict,
    DeployRunning,
    IdempotencyMismatch,
    NameTaken,
    NotFound,
    ProjectInUse,
)
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut
from runtools.platform.api.projects import service
from runtools.platform.api.projects.service import Filled
from runtools.platform.kit import http
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.projects import (
    Project,
    ProjectChange,
    ProjectContents,
    ProjectCreate,
    ProjectMove,
)

router = APIRouter(prefix="/v1/projects", tags=["projects"])


@router.get("", **document.route(Envelope[list[Project]]))
async def list_(request: Request, asked: Annotated[Page, Query()]) -> Response:
    """The org's projects, the default one first, with how much lies in each."""
    call = call_of(request)
    after = None if asked.cursor is None else http.position(asked.cursor, str)[0]
    found = await service.page(call, after, asked.limit + 1)
    shown, more = cut(found, asked.limit, _mark)
    return call.page([one(_shown(project)) for project in shown], more)


@router.post(
    "",
    **document.route(
        Envelope[Project], NameTaken, IdempotencyMismatch, status=201, takes=ProjectCreate
    ),
)
async def create(request: Request) -> Response:
    """Make a project."""
    call = call_of(request)
    return call.answer(one(_shown(await service.create(call, call.take(ProjectCreate)))), 201)


@router.get("/{ref}", **document.route(Envelope[Project], NotFound))
async def get(request: Request, ref: str) -> Response:
    """One of them."""
    call = call_of(request)
    return call.answer(one(_shown(await service.get(call, ref))))


@router.patch(
    "/{ref}",
    **document.route(
        Envelope[Project], NotFound, NameTaken, IdempotencyMismatch, takes=ProjectChange
    ),
)
async def change(request: Request, ref: str) -> Response:
    """Give it another name or colour."""
    call = call_of(request)
    return call.answer(_look(await service.change(call, ref, call.take(ProjectChange), _look)))


@router.delete(
    "/{ref}",
    **document.route(Envelope[Project], NotFound, Conflict, ProjectInUse, IdempotencyMismatch),
)
async def delete(
    request: Request,
    ref: str,
    move_to: Annotated[
        str | None,
        Query(
            alias="moveTo", max_length=64, pattern=r"^[^\x00]*$", description="for what is in it"
        ),
    ] = None,
) -> Response:
    """Delete an empty one; or any but the default, its things going to `moveTo`."""
    call = call_of(request)
    return call.answer(_look(await service.remove(call, ref, move_to, _look)))


@router.post(
    "/{ref}/move",
    **document.route(
        Envelope[Project],
        NotFound,
        Conflict,
        NameTaken,
        DeployRunning,
        IdempotencyMismatch,
        takes=ProjectMove,
    ),
)
async def move(request: Request, ref: str) -> Response:
    """Put sandboxes, agents, API keys and SSH keys into it: all that are named, or none."""
    call = call_of(request)
    return call.answer(_look(await service.move(call, ref, call.take(ProjectMove), _look)))


def _mark(found: Filled) -> str:
    return http.cursor("" if found.project.is_default else found.project.name)


def _look(found: Filled) -> bytes:
    return one(_shown(found))


def _shown(found: Filled) -> Project:
    project = found.project
    return Project(
        id=project.id,
        name=project.name,
        color=project.color,
        is_default=project.is_default,
        created_at=project.created_at,
        contents=ProjectContents(**found.counts),
    )
