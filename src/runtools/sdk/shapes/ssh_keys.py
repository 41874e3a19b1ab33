"""SSH keys, as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from runtools.sdk.shapes.base import Request, Shape

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}$")]


class SshKeyCreate(Request):
    """What `POST /v1/ssh-keys` takes."""

    label: Label = Field(description="unique in the org")
    public_key: str = Field(
        min_length=1, max_length=16_384, description="one line, as in ~/.ssh/id_ed25519.pub"
    )
    project_id: str | None = Field(
        None,
        max_length=64,
        pattern=r"^[^\x00]*$",
        description="a project's id or name; default: the org's default one",
    )


class SshKey(Shape):
    """A registered public key."""

    id: str
    label: str
    kind: str = Field(description="e.g. ssh-ed25519")
    bits: int | None = Field(description="of an RSA key")
    fingerprint: str = Field(description="SHA256:…, as ssh-keygen -l shows it")
    public_key: str
    project_id: str
    created_by: str
    created_at: datetime
