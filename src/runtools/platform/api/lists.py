"""How lists are asked for and go on: page sizes, cursors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from fastapi import Query
from pydantic import Field

from runtools.platform.kit import http
from runtools.platform.kit.db import micros, moment
from runtools.sdk.shapes.base import Request

ItemT = TypeVar("ItemT")


class Page(Request):
    """Where a list goes on, and how far."""

    limit: int = Field(50, ge=1, le=100)
    cursor: str | None = Field(None, max_length=1000)


class InProject(Page):
    """The same, of one project or of all."""

    project_id: str | None = Field(
        None, max_length=64, pattern=r"^[^\x00]*$", description="a project's id or name"
    )


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


def cut(
    found: Sequence[ItemT], limit: int, marked: Callable[[ItemT], str]
) -> tuple[Sequence[ItemT], str | None]:
    """A page of what was found (one more was asked for), and the cursor behind it if there is more."""
    shown = found[:limit]
    return shown, marked(shown[-1]) if len(found) > limit else None


def mark(at: datetime, item: str) -> str:
    """A cursor that goes on after an item, in lists that go by time."""
    return http.cursor(micros(at), item)
