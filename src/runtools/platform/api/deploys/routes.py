"""``/v1/deploys``: the plan of a deploy, having it carried out, and what became of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import (
    BuildFailed,
    Conflict,
    DeployRunning,
    IdempotencyMismatch,
    LossUnconfirmed,
    NameTaken,
    NotFound,
    PlanStale,
    WrongMasterKey,
)
from runtools.platform.api import document
from runtools.platform.api.attending import attended
from runtools.platform.api.calls import call_of
from runtools.platform.api.deploys import service, store
from runtools.platform.api.deploys.tables import Row
from runtools.platform.api.lists import InProject, cut, mark, place
from runtools.platform.api.projects import service as projects
from runtools.platform.kit.http import one
from runtools.sdk.shapes import deploys as shapes
from runtools.sdk.shapes.deploys import Commit, Deploy, DeployRequest, Plan, PlanRequest
from runtools.sdk.shapes.events import Envelope

router = APIRouter(prefix="/v1/deploys", tags=["deploys"])

_REFUSED = (NotFound, Conflict, NameTaken, BuildFailed, WrongMasterKey, IdempotencyMismatch)


@router.post("/plan", **document.route(Envelope[Plan], *_REFUSED, takes=PlanRequest))
async def plan(request: Request) -> Response:
    """What a deploy of these definitions would change now. Nothing is changed."""
    call = call_of(request)
    made = await service.make_plan(call, call.take(PlanRequest))
    call.subject = made.project
    return call.answer(one(made), keep=False)


@router.post(
    "",
    **document.route(
        Envelope[Deploy],
        *_REFUSED,
        DeployRunning,
        PlanStale,
        LossUnconfirmed,
        status=201,
        takes=DeployRequest,
    ),
)
async def create(request: Request) -> Response:
    """Have a plan carried out. Answers when it is taken on; `GET` tells how far it is."""
    call = call_of(request)
    row = await service.begin(call, call.take(DeployRequest))
    return call.answer(one(_shown(row)), 201)


@router.get("", **document.route(Envelope[list[Deploy]], NotFound))
async def list_(request: Request, asked: Annotated[InProject, Query()]) -> Response:
    """The org's deploys, the latest first."""
    call = call_of(request)
    before = place(asked.cursor)
    project_id = await projects.found(call, asked.project_id)
    found = await call.platform.db.read(store.page, call.org, project_id, before, asked.limit + 1)
    shown, more = cut(found, asked.limit, lambda row: mark(row.created_at, row.id))
    return call.page([one(_shown(row)) for row in shown], more)


@router.post(
    "/{ref}/cancel", **document.route(Envelope[Deploy], NotFound, Conflict, IdempotencyMismatch)
)
async def cancel(request: Request, ref: str) -> Response:
    """Have it end before its next change, or in the middle of a setup. `GET` tells when it has."""
    call = call_of(request)
    call.subject = ref
    return call.answer(one(_shown(await service.cancel(call, ref))))


@router.get("/{ref}", **document.route(Envelope[Deploy], NotFound))
async def get(
    request: Request,
    ref: str,
    wait_seconds: Annotated[int, Query(alias="waitSeconds", ge=0, le=60)] = 0,
    done: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """One deploy. `waitSeconds` waits so long for its end, or for more than `done` changes."""
    call = call_of(request)
    progress = service.progress(call, ref.replace("\0", ""), done, wait_seconds)
    row = await attended(request, call, progress)
    return call.answer(one(_shown(row)))


def _shown(row: Row) -> Deploy:
    commit = None if row.commit_id is None else Commit(id=row.commit_id, dirty=bool(row.dirty))
    values = {name: getattr(row, name) for name in shapes.Deploy.model_fields if name != "commit"}
    return Deploy.model_validate({**values, "commit": commit})
