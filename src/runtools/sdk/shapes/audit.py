"""The audit log, as the API shows it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from runtools.sdk.shapes.base import Shape


class AuditLine(Shape):
    """One mutating call."""

    id: str
    at: datetime
    actor: str = Field(description="the id of the API key")
    action: str = Field(description="noun.verb, for example sandboxes.create")
    resource: str | None = Field(description="what it was done to: an id or a name")
    status: int | None = Field(
        description="the HTTP status of its answer; null where there is none, so far or because the api "
        "ended before it: what was asked for may be done"
    )
    error: str | None = Field(description="the error's code, if it was refused or failed")
    request_id: str
    source: str = Field(description="the address it came from")
