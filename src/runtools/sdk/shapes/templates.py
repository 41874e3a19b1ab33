"""Templates and their builds, as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.sandboxes import Name

BuildState = Literal["building", "ready", "failed"]


class TemplateBuild(Request, defer_build=True):
    """What `POST /v1/templates/{slug}/builds` takes. The slug may be a known recipe or a new name."""

    recipe: Name | None = Field(None, description="a known recipe; default: the one the slug names")
    apt: list[str] = Field(default_factory=list, max_length=512)
    run: str | None = Field(
        None, max_length=1_048_576, description="a script run as root at the end"
    )


class Template(Shape, defer_build=True):
    """The newest version of a template, ready or not."""

    id: str
    slug: str
    version: int
    recipe: str
    state: BuildState
    progress: float = Field(description="0 to 1")
    step: str
    tested: bool = Field(description="false where no build has been seen to pass by its makers")
    is_default: bool
    is_own: bool = Field(True, description="false: the platform's, which every org may use")
    size_bytes: int
    error: str | None
    created_at: datetime
    finished_at: datetime | None


class BuildLine(Shape, defer_build=True):
    """One event of a build's log; `n` is its resumable position."""

    n: int
    at: datetime
    progress: float
    step: str
    text: str
