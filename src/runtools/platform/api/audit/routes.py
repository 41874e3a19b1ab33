"""``/v1/audit``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from runtools.platform.api import document, guard
from runtools.platform.api.audit import store
from runtools.platform.api.audit.store import Sought
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut, mark, place
from runtools.platform.core import access
from runtools.platform.kit.http import one
from runtools.sdk.shapes.audit import AuditLine
from runtools.sdk.shapes.events import Envelope

router = APIRouter(prefix="/v1/audit", tags=["audit"])

_SHOWN = tuple(AuditLine.model_fields)


class Lines(Page):
    """Which lines, and where the list goes on."""

    action: str | None = Field(None, max_length=64, description="for example secrets.reveal")
    resource: str | None = Field(None, max_length=200)
    actor: str | None = Field(None, max_length=64, description="a user's or API key's id")
    platform: bool = Field(
        False, description="what was done in no org, such as sign-ins that failed: for the operator"
    )


@router.get("", **document.route(Envelope[list[AuditLine]]))
async def list_(request: Request, asked: Annotated[Lines, Query()]) -> Response:
    """Every mutating call of the org, the newest first."""
    call = call_of(request)
    if asked.platform:
        guard.check_scope(call.who, f"{access.PLATFORM}:read")
    org_id = None if asked.platform else call.org
    sought = Sought(asked.action, asked.resource, asked.actor)
    after = place(asked.cursor)
    found = await call.platform.db.read(store.page, org_id, sought, after, asked.limit + 1)
    lines, more = cut(found, asked.limit, lambda line: mark(line.at, line.id))
    shown = [
        AuditLine.model_validate({name: getattr(line, name) for name in _SHOWN}) for line in lines
    ]
    return call.page([one(line) for line in shown], more)
