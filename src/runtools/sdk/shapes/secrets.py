"""Secrets, as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from runtools.sdk.shapes.base import Request, Shape

Category = Literal["provider", "tool", "custom"]
Scope = Literal["all", "agents", "tools", "sandboxes"]

MAX_VALUE_CHARACTERS = 65_536

SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
SecretValue = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_VALUE_CHARACTERS, pattern=r"^[^\x00]+$")
]


class SecretSet(Request):
    """What `POST /v1/secrets` takes; of a secret that exists, what is left out stays as it is."""

    name: SecretName
    value: SecretValue = Field(repr=False)
    category: Category = "provider"
    scope: Scope = "all"
    description: str | None = Field(None, max_length=1000)


class SecretRotate(Request):
    """What `PATCH /v1/secrets/{name}` takes."""

    value: SecretValue = Field(repr=False)


class Secret(Shape):
    """A secret without its value."""

    id: str
    name: str
    category: Category
    scope: Scope
    description: str | None
    version: int = Field(description="1, and one more with each new value")
    created_at: datetime
    updated_at: datetime


class RevealedSecret(Secret):
    """A secret with its value: the answer of `POST /v1/secrets/{name}/reveal` alone."""

    value: str = Field(repr=False)
