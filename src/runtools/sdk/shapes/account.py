"""Who calls: API keys and the caller's own view of itself."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from runtools.sdk.shapes.base import Request, Shape

Role = Literal["admin", "member"]

_LASTS = r"^[1-9][0-9]{0,3}[dwy]$"


class ApiKeyCreate(Request):
    """What `POST /v1/api-keys` takes."""

    # No control characters, and none that cannot be seen or turn the text around.
    name: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+$",
    )
    scopes: list[str] = Field(
        default_factory=list,
        max_length=64,
        description="noun:verb, noun:* or *; none: everything in the org",
    )
    expires_in: str | None = Field(None, pattern=_LASTS, description="for example 30d, 12w, 1y")
    project_id: str | None = Field(
        None,
        max_length=64,
        pattern=r"^[^\x00]*$",
        description="a project's id or name; default: the org's default one",
    )
    is_test: bool = Field(False, description="marks it rt_test_ instead of rt_live_")


class ApiKeyRotate(Request):
    """What `POST /v1/api-keys/{id}/rotate` takes."""

    expires_in: str | None = Field(
        None,
        pattern=_LASTS,
        description="for example 30d, 12w, 1y; default: it ends with the old one",
    )


class ApiKey(Shape):
    """An API key. The key itself is shown once, in the answer that makes it."""

    id: str
    name: str
    prefix: str = Field(description="its first characters, to tell it from others")
    key: str | None = Field(None, repr=False, description="only in the answer that makes it")
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    scopes: list[str] = Field(default_factory=list, description="what it may do; none: everything")
    expires_at: datetime | None = None
    project_id: str | None = None
    created_by: str | None = Field(None, description="the user or key that made it")


class Person(Shape):
    """A user."""

    id: str
    email: str
    name: str


class Me(Shape):
    """The caller: an API key or a person, in which org, and with which rights there."""

    kind: Literal["key", "session"] = "key"
    org_id: str | None = Field(description="null: a person who is in no org")
    org_name: str | None
    key_id: str | None = Field(description="null for people")
    user: Person | None = Field(None, description="null for keys")
    role: Role | None = Field(None, description="the person's in the org")
    scopes: list[str] = Field(
        default_factory=list,
        description="all it may do; `*`: everything in the org; `platform:*`: it is the operator",
    )
    default_project_id: str | None
