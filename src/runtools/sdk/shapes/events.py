"""The envelope around every response, and the events of streams."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import Field

from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.sandboxes import Sandbox

T = TypeVar("T")


class Meta(Shape):
    """What is said about a response rather than in it."""

    request_id: str
    trace_id: str | None = None
    has_more: bool | None = None
    next_cursor: str | None = None


class Envelope(Shape, Generic[T]):
    """A successful response."""

    data: T
    meta: Meta


class ErrorBody(Shape):
    """What went wrong."""

    code: str
    message: str
    hint: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    request_id: str | None = None
    trace_id: str | None = None


class ErrorEnvelope(Shape):
    """A failed response."""

    error: ErrorBody


class SandboxEvent(Shape):
    """A sandbox changed: its new look, and the ledger's words. `id` resumes the stream after it."""

    id: int
    at: datetime
    sandbox: Sandbox
    cause: str
    actor: str


class HostView(Shape):
    """A machine that runs sandboxes."""

    id: str
    name: str
    driver: str
    accelerator: str
    isolation: str
    alive: bool
    vcpus: int
    memory_total_mb: int
    memory_free_mb: int = 0
    disk_free_bytes: int
    sandboxes_running: int
    sandboxes_paused: int
    queued: int


class Health(Shape):
    """Whether the platform lives (`/healthz`) and can work (`/readyz`)."""

    status: str
    version: str
    install_id: str = Field("", description="which platform answers: the install id of its home")
    warnings: list[str] = Field(default_factory=list)
