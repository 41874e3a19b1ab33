"""Access to sandboxes by SSH, as the API shows and takes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from runtools.sdk.shapes.base import Request, Shape

MOST_SECONDS = 31_536_000

_PublicLine = Annotated[str, StringConstraints(pattern=r"^[a-z0-9@.-]+ [A-Za-z0-9+/]+=*$")]


class SshAccessCreate(Request):
    """What `POST /v1/sandboxes/{ref}/ssh` takes."""

    public_key: str = Field(
        min_length=1, max_length=16_384, description="one line, as in ~/.ssh/id_ed25519.pub"
    )
    ttl_seconds: int | None = Field(
        None,
        ge=1,
        le=MOST_SECONDS,
        description="for how long it opens; sessions go on. None: as long as who let it in may",
    )


class SshAccess(Shape):
    """Where a sandbox is reached by SSH; after a `POST` also which key was let in, until when."""

    sandbox_id: str
    # They stand in files and on command lines of ssh: nothing else may.
    user: str = Field(pattern=r"^[a-z0-9-]+$", description="for ssh: the sandbox's id")
    host: str = Field(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:-]*$")
    port: int = Field(ge=1, le=65_535)
    host_keys: list[_PublicLine] = Field(
        description="what the gateway is known by; none: it has not been started yet"
    )
    fingerprint: str | None = None
    expires_at: datetime | None = None
