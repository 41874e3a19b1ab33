"""Webhooks: where events of sandboxes are sent, and what became of each."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from runtools.sdk.shapes.base import Request, Shape

EventType = Literal[
    "sandbox.created",
    "sandbox.started",
    "sandbox.paused",
    "sandbox.resumed",
    "sandbox.snapshotted",
    "sandbox.rolled_back",
    "sandbox.forked",
    "sandbox.stopped",
    "run.waiting",
    "run.completed",
    "run.failed",
    "run.cancelled",
    "run.limit_reached",
]
DeliveryState = Literal["pending", "delivered", "failed"]


class WebhookCreate(Request, defer_build=True):
    """What `POST /v1/webhooks` takes."""

    url: str = Field(min_length=1, max_length=2048)
    events: list[EventType] = Field(default_factory=list, max_length=20, description="[]: all")
    description: str = Field("", max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")


class Webhook(Shape, defer_build=True):
    """A receiver of events. Its secret is shown once, in the answer that makes it."""

    id: str
    url: str
    events: list[str] = Field(description="[]: all")
    description: str
    secret: str | None = Field(None, repr=False, description="only in the answer that makes it")
    enabled: bool
    disabled_reason: str | None
    created_at: datetime


class WebhookDelivery(Shape, defer_build=True):
    """An event on its way to a receiver. Repeats of the same event have the same `event_id`."""

    id: str
    webhook_id: str
    event_id: str = Field(description="the header `webhook-id`")
    type: str
    sandbox_id: str | None
    state: DeliveryState
    attempts: int = Field(description="begun so far")
    status: int | None = Field(description="what the receiver last answered, if it did")
    error: str | None = Field(description="why the last attempt failed")
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None


class WebhookEvent(Shape, defer_build=True):
    """What a receiver gets: the body of the request.

    ``data`` has ``sandbox`` (as the API shows it at that moment), ``cause`` and ``actor``; in events of
    runs it has ``run``.
    """

    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]
