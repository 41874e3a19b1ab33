"""Projects, as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.sandboxes import Name

Color = Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$")]
Ref = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[^\x00]+$")]

MOST_MOVED = 1000


class ProjectCreate(Request):
    """What `POST /v1/projects` takes."""

    name: Name = Field(description="unique in the org")
    color: Color | None = Field(None, description="for those who draw it, e.g. #3366cc")


class ProjectChange(Request):
    """What `PATCH /v1/projects/{ref}` takes; what is left out stays."""

    name: Name | None = None
    color: Color | None = None


class ProjectMove(Request):
    """What `POST /v1/projects/{ref}/move` takes: what goes into that project."""

    sandboxes: list[Ref] = Field(
        default_factory=list, max_length=MOST_MOVED, description="ids or names"
    )
    agents: list[Ref] = Field(
        default_factory=list,
        max_length=MOST_MOVED,
        description="ids or slugs; what they name must stand in the project that they go to",
    )
    api_keys: list[Ref] = Field(default_factory=list, max_length=MOST_MOVED, description="ids")
    ssh_keys: list[Ref] = Field(
        default_factory=list, max_length=MOST_MOVED, description="ids or labels"
    )


class ProjectContents(Shape):
    """How many living things of each kind lie in a project."""

    sandboxes: int = 0
    api_keys: int = 0
    ssh_keys: int = 0
    agents: int = 0
    tools: int = 0
    standing_sandboxes: int = 0


class Project(Shape):
    """A group of an org's things. It allows and forbids nothing."""

    id: str
    name: str
    color: str | None
    is_default: bool = Field(description="where new things go that name no project")
    created_at: datetime
    contents: ProjectContents
