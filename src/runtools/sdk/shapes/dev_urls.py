"""Dev URLs, as the API shows and takes them: addresses of ports of sandboxes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from runtools.sdk.shapes.base import Request, Shape

Access = Literal["private", "public"]
DecidedBy = Literal["port", "sandbox", "org", "default"]

Port = Annotated[int, Field(ge=1, le=65535, description="any but 22 and the guest agent's, 7709")]

DEFAULT_TTL_SECONDS = 3600
MAX_TTL_SECONDS = 7 * 86_400


class DevUrl(Shape, defer_build=True):
    """The address of one port."""

    port: int
    url: str
    access: Access = Field(
        description="public: for whoever has the address; private: for keys and people of the org, "
        "and for who has a link"
    )
    decided_by: DecidedBy = Field(description="where that was chosen; the nearest choice counts")
    links: int = Field(description="links to it that open it now")


class DevUrls(Shape, defer_build=True):
    """The addresses of a sandbox."""

    pattern: str = Field(description="the address of a port, with {port} where its number goes")
    access: Access = Field(description="of ports for which nothing else was chosen")
    decided_by: DecidedBy
    ports: list[DevUrl] = Field(description="those with a choice of their own, or with links")


class DevUrlAccess(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/urls` takes."""

    port: Port | None = Field(None, description="default: all ports without a choice of their own")
    access: Access


class DevUrlLinkCreate(Request, defer_build=True):
    """What `POST /v1/sandboxes/{ref}/urls/{port}/links` takes."""

    ttl_seconds: int = Field(DEFAULT_TTL_SECONDS, ge=10, le=MAX_TTL_SECONDS)


class DevUrlLink(Shape, defer_build=True):
    """An address that opens as it stands, for a while. The link is shown in this answer only."""

    url: str = Field(repr=False)
    expires_at: datetime


class OrgDevUrls(Request, defer_build=True):
    """What an org has chosen for all its sandboxes."""

    access: Access
