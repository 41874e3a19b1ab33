"""``/v1/webhooks``: receivers of events, and what was sent to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import Conflict, IdempotencyMismatch, NotFound
from runtools.platform.api import document
from runtools.platform.api.calls import call_of
from runtools.platform.api.lists import Page, cut, mark, place
from runtools.platform.api.webhooks import service
from runtools.platform.api.webhooks.tables import Delivery, Hook
from runtools.platform.kit.http import many, one
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.webhooks import Webhook, WebhookCreate, WebhookDelivery

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post(
    "",
    **document.route(
        Envelope[Webhook], Conflict, IdempotencyMismatch, status=201, takes=WebhookCreate
    ),
)
async def create(request: Request) -> Response:
    """Have events sent to a URL. Its secret is shown in this answer only."""
    call = call_of(request)
    hook, secret = await service.create(call, call.take(WebhookCreate))
    return call.answer(one(_shown(hook, secret)), 201, keep=False)


@router.get("", **document.route(Envelope[list[Webhook]]))
async def list_(request: Request) -> Response:
    """The org's webhooks, the oldest first."""
    call = call_of(request)
    return call.answer(many([_shown(hook) for hook in await service.all_of(call)]))


@router.get("/{webhook_id}", **document.route(Envelope[Webhook], NotFound))
async def get(request: Request, webhook_id: str) -> Response:
    """One of them; a disabled one says why."""
    call = call_of(request)
    return call.answer(one(_shown(await service.get(call, webhook_id))))


@router.delete("/{webhook_id}", **document.route(Envelope[Webhook], NotFound, IdempotencyMismatch))
async def delete(request: Request, webhook_id: str) -> Response:
    """Delete it, with its deliveries."""
    call = call_of(request)
    return call.answer(_look(await service.remove(call, webhook_id, _look)))


@router.post(
    "/{webhook_id}/enable", **document.route(Envelope[Webhook], NotFound, IdempotencyMismatch)
)
async def enable(request: Request, webhook_id: str) -> Response:
    """Send to one that was disabled again; what happened in between is not sent."""
    call = call_of(request)
    return call.answer(_look(await service.enable(call, webhook_id, _look)))


@router.post(
    "/{webhook_id}/test",
    **document.route(Envelope[WebhookDelivery], NotFound, IdempotencyMismatch),
)
async def test(request: Request, webhook_id: str) -> Response:
    """Send a `webhook.test` event now, once, and tell what became of it."""
    call = call_of(request)
    return call.answer(one(_delivery(await service.test(call, webhook_id))))


@router.get("/{webhook_id}/deliveries", **document.route(Envelope[list[WebhookDelivery]], NotFound))
async def deliveries(request: Request, webhook_id: str, page: Annotated[Page, Query()]) -> Response:
    """Its deliveries, the newest first; those that ended are kept for a week."""
    call = call_of(request)
    found = await service.page(call, webhook_id, place(page.cursor), page.limit + 1)
    sent, more = cut(found, page.limit, lambda delivery: mark(delivery.created_at, delivery.id))
    return call.page([one(_delivery(delivery)) for delivery in sent], more)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    **document.route(Envelope[WebhookDelivery], NotFound, IdempotencyMismatch, status=201),
)
async def redeliver(request: Request, webhook_id: str, delivery_id: str) -> Response:
    """Send the event of a delivery once more, under the same event id."""
    call = call_of(request)
    return call.answer(one(_delivery(await service.redeliver(call, webhook_id, delivery_id))), 201)


def _look(hook: Hook) -> bytes:
    return one(_shown(hook))


def _shown(hook: Hook, secret: str | None = None) -> Webhook:
    return Webhook(
        id=hook.id,
        url=hook.url,
        events=hook.events,
        description=hook.description,
        secret=secret,
        enabled=hook.enabled,
        disabled_reason=hook.disabled_reason,
        created_at=hook.created_at,
    )


def _delivery(row: Delivery) -> WebhookDelivery:
    return WebhookDelivery.model_validate(
        {
            "id": row.id,
            "webhook_id": row.webhook_id,
            "event_id": row.event_id,
            "type": row.type,
            "sandbox_id": row.sandbox_id,
            "state": row.state,
            "attempts": row.attempts,
            "status": row.status,
            "error": row.error,
            "created_at": row.created_at,
            "next_attempt_at": row.next_at,
            "finished_at": row.finished_at,
        }
    )
