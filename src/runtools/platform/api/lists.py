"""How lists are asked for and go on: page sizes, cursors."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query
from pydantic import Field

from runtools.platform.kit import http
from runtools.platform.kit.db import micros, moment
from runtools.sdk.shapes.base import Request


class Page(Request):
    """Where a list goes on, and how far."""

    limit: int = Field(50, ge=1, le=100)
    cursor: str | None = Field(None, max_length=1000)


class Within(Request):
    """Of which project a list is."""

    project_id: str | None = Field(
        None, max_length=64, pattern=r"^[^\x00]*$", description="a project's id or name"
    )


class InProject(Page, Within):
    """The same, of one project or of all."""


ProjectRef = Annotated[
    str | None,
    Query(
        alias="projectId",
        max_length=64,
        pattern=r"^[^\x00]*$",
        description="a project's id or name: slugs are one project's own",
    ),
]


def place(cursor: str | None) -> tuple[datetime, str] | None:
    """The place that a cursor of `mark` names."""
    if cursor is None:
        return None
    at, item = http.position(cursor, int, str)
    try:
        return moment(at), item
    except OverflowError:
        raise http.wrong_field("cursor", "not a cursor of this list") from None


def mark(at: datetime, item: str) -> str:
    """A cursor that goes on after an item, in lists that go by time."""
    return http.cursor(micros(at), item)
