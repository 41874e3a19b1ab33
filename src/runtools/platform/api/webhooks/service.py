"""What can be done with webhooks: making them, trying them, sending again."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from runtools.errors import NotFound
from runtools.platform.api.calls import Call
from runtools.platform.api.webhooks import sender, store
from runtools.platform.api.webhooks.tables import LABEL, Delivery, Hook
from runtools.platform.core.ids import new_id
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.outbound import Refused
from runtools.sdk.shapes.webhooks import WebhookCreate
from runtools.sdk.signatures import PREFIX

MOST = 20
_SECRET_BYTES = 32


async def create(call: Call, wanted: WebhookCreate) -> tuple[Hook, str | None]:
    """A new webhook with its secret; the same call again gets it without.

    Raises:
        InvalidRequest: its URL cannot or may not be spoken to.
        Conflict: there are too many.
    """
    platform = call.platform
    try:
        await platform.outbound.check(wanted.url)
    except Refused as exc:
        raise http.wrong_field("url", str(exc)) from None
    webhook_id = new_id("whk")
    secret = PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    made = await call.once(
        store.made_by, lambda: call.made(_create, call, webhook_id, secret, wanted)
    )
    return made, secret if made.id == webhook_id else None


async def all_of(call: Call) -> list[Hook]:
    """The org's webhooks."""
    return await call.platform.db.read(store.all_of, call.org)


async def get(call: Call, webhook_id: str) -> Hook:
    """One of the org's."""
    return _found(await call.platform.db.read(store.find, call.org, webhook_id), webhook_id)


async def enable(call: Call, webhook_id: str, look: Callable[[Hook], bytes]) -> Hook:
    """Let events flow to it again.

    Args:
        look: how it is shown in the answer, which is kept with what it tells of.
    """

    def act(conn: Transaction) -> Hook:
        return _found(store.enable(conn, call.org, webhook_id), webhook_id)

    return await call.settled(look, act)


async def remove(call: Call, webhook_id: str, look: Callable[[Hook], bytes]) -> Hook:
    """Delete it; what is on its way may still arrive.

    Args:
        look: as in `enable`.
    """

    def act(conn: Transaction) -> Hook:
        return _found(store.remove(conn, call.org, webhook_id), webhook_id)

    return await call.settled(look, act)


async def page(
    call: Call, webhook_id: str, after: tuple[datetime, str] | None, limit: int
) -> list[Delivery]:
    """Its deliveries."""
    hook = await get(call, webhook_id)
    return await call.platform.db.read(store.page, call.org, hook.id, after, limit)


async def test(call: Call, webhook_id: str) -> Delivery:
    """Send a test event now, and once."""
    platform = call.platform
    hook = await get(call, webhook_id)
    now, event_id, lease = platform.clock.now(), new_id("evt"), new_id("lse")
    event = {
        "id": event_id,
        "type": "webhook.test",
        "timestamp": now.isoformat(),
        "data": {"cause": "request", "actor": call.actor},
    }
    delivery = Delivery(
        id=_named(call),
        webhook_id=hook.id,
        event_id=event_id,
        type="webhook.test",
        body=json.dumps(event, separators=(",", ":")),
        created_at=now,
        state="failed",
        attempts=1,
        error="the platform was stopped in the middle of it",
        lease=lease,
        finished_at=now,
    )
    kept = await platform.db.write(store.put_once, delivery)
    if kept is None:
        raise _gone(webhook_id)
    if kept.lease != lease:
        return kept  # a repeat of the call: it has been sent
    outcome = await sender.attempt(platform, hook, delivery)
    ended = replace(
        delivery,
        state="delivered" if outcome.arrived else "failed",
        status=outcome.status,
        error=outcome.error,
        finished_at=platform.clock.now(),
    )

    def write(conn: Transaction) -> None:
        store.report(
            conn,
            delivery.id,
            lease,
            state=ended.state,
            status=ended.status,
            error=ended.error,
            next_at=None,
            finished_at=ended.finished_at,
        )

    await platform.db.write(write)
    return ended


async def redeliver(call: Call, webhook_id: str, delivery_id: str) -> Delivery:
    """Send the event of a delivery once more, out of order."""
    platform = call.platform
    hook = await get(call, webhook_id)
    old = await platform.db.read(store.find_delivery, call.org, hook.id, delivery_id)
    if old is None:
        raise NotFound(
            f"{hook.id} has no delivery {delivery_id[:80]!r}",
            hint="deliveries are kept for a week",
        )
    now = platform.clock.now()
    again = Delivery(
        id=_named(call),
        webhook_id=hook.id,
        event_id=old.event_id,
        type=old.type,
        body=old.body,
        created_at=now,
        sandbox_id=old.sandbox_id,
        next_at=now,
    )
    kept = await platform.db.write(store.put_once, again)
    if kept is None:
        raise _gone(webhook_id)
    platform.bus.signal(store.TOPIC)
    return kept


def _create(
    conn: Transaction, call: Call, webhook_id: str, secret: str, wanted: WebhookCreate
) -> Hook:
    sealed = call.platform.vault.seal(conn, secret, LABEL, call.org, webhook_id)
    hook = Hook(
        id=webhook_id,
        org_id=call.org,
        url=wanted.url,
        events=sorted(set(wanted.events)),
        description=wanted.description,
        key_id=sealed.key_id,
        sealed=sealed.sealed,
        op=call.op,
        created_at=call.platform.clock.now(),
    )
    store.add(conn, hook, MOST)
    return hook


def _named(call: Call) -> str:
    """The id of the delivery that a call makes: a repeat of it is the same one."""
    return f"dlv_{call.op.partition('_')[2][:20]}"


def _found(hook: Hook | None, webhook_id: str) -> Hook:
    if hook is None:
        raise _gone(webhook_id)
    return hook


def _gone(webhook_id: str) -> NotFound:
    return NotFound(f"no webhook {webhook_id[:80]!r}", hint="GET /v1/webhooks lists them")
