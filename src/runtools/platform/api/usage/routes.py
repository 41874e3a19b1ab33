"""``/v1/usage``: for how long sandboxes ran, and what they took on the disks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from runtools.errors import NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut
from runtools.platform.api.usage import service
from runtools.platform.kit import http
from runtools.platform.kit.http import one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.usage import Group, UsageRow

router = APIRouter(prefix="/v1/usage", tags=["usage"])

MOST_DAYS = 400
# No usage lies outside, and at the calendar's ends there are no days to count on to.
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


class Period(Page):
    """Of which time, and how it is added up."""

    since: AwareDatetime | None = Field(
        None, alias="from", description="default: the beginning of the month, in UTC"
    )
    until: AwareDatetime | None = Field(None, alias="to", description="exclusive; default: now")
    group: Group = "sandbox"
    project_id: str | None = Field(
        None, max_length=64, pattern=r"^[^\x00]*$", description="a project's id or name"
    )


@router.get("", **document.route(Envelope[list[UsageRow]], NotFound))
async def list_(request: Request, asked: Annotated[Period, Query()]) -> Response:
    """What the org's sandboxes used in a period; only lists by sandbox have pages."""
    call = call_of(request)
    period = _period(asked, call.platform.clock.now())
    if asked.group != "sandbox":
        found = await service.by_group(call, period, asked.project_id, asked.group)
        return call.page([one(row) for row in found], None)
    after = "" if asked.cursor is None else http.position(asked.cursor, str)[0]
    found = await service.by_sandbox(call, period, asked.project_id, after, asked.limit + 1)
    rows, more = cut(found, asked.limit, lambda row: http.cursor(str(row.sandbox_id)))
    return call.page([one(row) for row in rows], more)


def _period(asked: Period, now: datetime) -> tuple[datetime, datetime]:
    month = datetime(now.year, now.month, 1, tzinfo=UTC)
    since, until = asked.since or month, asked.until or now
    for field, at in (("from", since), ("to", until)):
        if not _FIRST <= at <= _LAST:
            raise http.wrong_field(field, f"lies outside {_FIRST:%F} to {_LAST:%F}")
    if until < since:
        raise http.wrong_field("to", "lies before from")
    if asked.group == "day" and (until - since).days > MOST_DAYS:
        raise http.wrong_field("to", f"days are listed for {MOST_DAYS} at most")
    return since, until
