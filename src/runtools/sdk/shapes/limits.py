"""An org's limits, as the API shows and takes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runtools.sdk.shapes.base import Request, Shape

Limit = Annotated[int, Field(ge=0, le=1_000_000_000)] | Literal["default"]


class Amounts(Shape):
    """So much of everything that is limited."""

    sandboxes: int = Field(0, description="running at once, those that are starting included")
    vcpus: int = Field(0, description="of those")
    memory_mb: int = Field(0, description="of those")
    disk_mb: int = Field(0, description="of all that have not ended, as they were asked for")
    snapshots: int = 0
    agent_tokens: int = Field(0, description="of models, by all runs of a calendar month (UTC)")
    agent_cents: int = Field(0, description="of US dollars that those cost, as far as is known")


class OrgLimits(Shape):
    """What an org may have at once, and what it has."""

    org_id: str
    limits: Amounts = Field(description="0: no limit")
    used: Amounts


class LimitsChange(Request):
    """What `PATCH /v1/orgs/{org_id}/limits` takes: 0 is no limit, ``default`` the platform's own.

    What is left out stays as it is.
    """

    sandboxes: Limit | None = None
    vcpus: Limit | None = None
    memory_mb: Limit | None = None
    disk_mb: Limit | None = None
    snapshots: Limit | None = None
    agent_tokens: Limit | None = None
    agent_cents: Limit | None = None
