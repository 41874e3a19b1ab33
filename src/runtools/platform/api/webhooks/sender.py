"""Sends what lies in the outbox: at least once, in order per sandbox, later and later to who fails.

Any number of api processes may do it side by side: each takes rows by a lease that is longer than an
attempt can be. A process that dies between sending and writing it down leaves its lease to run out, and
the event is sent again under the same id.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from runtools import __version__
from runtools.errors import WrongMasterKey
from runtools.platform.api.platform import Platform
from runtools.platform.api.vault.vault import Sealed
from runtools.platform.api.webhooks import store
from runtools.platform.api.webhooks.store import Delivery, Hook
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.outbound import Failed, Refused
from runtools.sdk.signatures import sign

log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 15.0
# Longer than an attempt, with room for clocks of processes that differ.
LEASE = timedelta(seconds=60)
# Before the second attempt, the third …: 23 hours in all.
PAUSES_SECONDS = (5, 30, 120, 600, 1800, 7200, 21_600, 50_400)
KEPT = timedelta(days=7)
MOST_WAITING = 10_000
_AT_ONCE = 32
_AT_ONCE_EACH = 4
_SWEEP_SECONDS = 60.0
_GONE = 410


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt."""

    status: int | None
    error: str | None

    @property
    def arrived(self) -> bool:
        """Whether the receiver took it."""
        return self.error is None


class Sender:
    """The part of one api process that sends."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._busy: Counter[str] = Counter()

    async def run(self) -> None:
        """Send for ever."""
        platform, swept = self._platform, float("-inf")
        with platform.bus.watching(store.TOPIC) as watch:
            while True:
                try:
                    await self.round()
                    if platform.clock.monotonic() - swept > _SWEEP_SECONDS:
                        swept = platform.clock.monotonic()
                        await self.sweep()
                except Exception:
                    # The edge of a loop that must not end.
                    log.exception("sending webhooks")
                await watch.wait()

    async def round(self) -> None:
        """Begin to send what may be sent now."""
        platform = self._platform
        now = platform.clock.now()
        for webhook_id in await platform.db.read(store.due, now, _AT_ONCE):
            room = min(_AT_ONCE_EACH - self._busy[webhook_id], _AT_ONCE - self._busy.total())
            if room <= 0:
                continue
            lease = new_id("lse")
            taken = await platform.db.write(store.claim, webhook_id, lease, now, now + LEASE, room)
            for hook, delivery in taken:
                self._busy[webhook_id] += 1
                sending = self._send(hook, delivery, lease)
                platform.spawn(sending, f"delivery {delivery.id}")

    async def sweep(self) -> None:
        """Forget what is old, and give up receivers for which too much waits."""
        platform = self._platform
        now = platform.clock.now()
        await platform.db.write(store.forget_old, now - KEPT)
        for webhook_id in await platform.db.read(store.overfull, MOST_WAITING):
            reason = f"more than {MOST_WAITING} events waited to be sent"
            await platform.db.write(store.disable, webhook_id, reason, now)

    async def _send(self, hook: Hook, delivery: Delivery, lease: str) -> None:
        try:
            outcome = await attempt(self._platform, hook, delivery)
            self._platform.meters.webhook(arrived=outcome.arrived)
            await settle(self._platform, hook, delivery, lease, outcome, delivery.attempts + 1)
        finally:
            self._busy[hook.id] -= 1
            if self._busy[hook.id] <= 0:
                del self._busy[hook.id]
            self._platform.bus.signal(store.TOPIC)


async def attempt(platform: Platform, hook: Hook, delivery: Delivery) -> Outcome:
    """Send it once."""
    sealed = Sealed(hook.key_id, hook.sealed)
    try:
        secret = platform.vault.open(sealed, store.LABEL, hook.org_id, hook.id)
    except WrongMasterKey as exc:
        return Outcome(None, str(exc)[:300])
    body = delivery.body.encode()
    stamp = int(platform.clock.now().timestamp())
    headers = [
        ("Content-Type", "application/json"),
        ("User-Agent", f"RunTools/{__version__}"),
        ("webhook-id", delivery.event_id),
        ("webhook-timestamp", str(stamp)),
        ("webhook-signature", sign(secret, delivery.event_id, stamp, body)),
    ]
    try:
        answer = await platform.outbound.ask("POST", hook.url, headers, body, ATTEMPT_SECONDS)
    except (Refused, Failed) as exc:
        return Outcome(None, str(exc)[:300])
    status = answer.status
    if 200 <= status < 300:
        return Outcome(status, None)
    if 300 <= status < 400:
        return Outcome(status, f"answered {status}: redirects are not followed")
    return Outcome(status, f"answered {status}")


async def settle(
    platform: Platform, hook: Hook, delivery: Delivery, lease: str, outcome: Outcome, attempts: int
) -> None:
    """Write down what became of the n-th attempt, and when the next one is due."""
    now = platform.clock.now()
    last = attempts > len(PAUSES_SECONDS) or outcome.status == _GONE
    state = "delivered" if outcome.arrived else "failed" if last else "pending"
    next_at = None
    if state == "pending":
        pause = PAUSES_SECONDS[attempts - 1] * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
        next_at = now + timedelta(seconds=pause)
    finished = None if state == "pending" else now

    def write(conn: Transaction) -> None:
        mine = store.report(
            conn,
            delivery.id,
            lease,
            state=state,
            status=outcome.status,
            error=outcome.error,
            next_at=next_at,
            finished_at=finished,
        )
        if mine and state == "failed":
            gone = outcome.status == _GONE
            reason = (
                "the receiver answered 410: it is gone"
                if gone
                else f"{attempts} attempts over a day failed; the last: {outcome.error}"
            )
            store.disable(conn, hook.id, reason, now)

    await platform.db.write(write)
    if state == "failed":
        log.warning("webhook %s is disabled: %s", hook.id, outcome.error)
    elif not outcome.arrived:
        log.info("delivery %s to webhook %s: %s", delivery.id, hook.id, outcome.error)
