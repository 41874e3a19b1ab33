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
from runtools.platform.api.webhooks.tables import LABEL, Delivery, Hook
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.outbound import Failed, Refused
from runtools.platform.kit.rounds import Rounds
from runtools.sdk.signatures import sign

log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 15.0
# Longer than an attempt, with room for clocks of processes that differ.
LEASE = timedelta(seconds=60)
# Before the second attempt, the third …: 23 hours in all.
PAUSES_SECONDS = (5, 30, 120, 600, 1800, 7200, 21_600, 50_400)
KEPT = timedelta(days=7)
MOST_WAITING = 10_000
# What one process sends at once. An org has room for more receivers than it may have (`service.MOST`), so
# that those of its own which hang, one attempt each, keep none of its others from being served.
_AT_ONCE = 96
_AT_ONCE_ORG = 24
_AT_ONCE_EACH = 4
_AT_ONCE_FAILING = 1
_REMEMBERED = 10_000
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
        self._busy: Counter[str] = Counter()  # attempts under way, by webhook and by org
        self._under_way = 0
        self._failing: set[str] = set()  # webhooks whose last attempt did not arrive

    async def run(self) -> None:
        """Send for ever."""
        platform, swept = self._platform, float("-inf")
        rounds = Rounds(log, "sending webhooks")
        with platform.bus.watching(store.TOPIC) as watch:
            while True:
                with rounds:
                    await self.round()
                    if platform.clock.monotonic() - swept > _SWEEP_SECONDS:
                        swept = platform.clock.monotonic()
                        await self.sweep()
                await watch.wait()

    async def round(self) -> None:
        """Begin to send what may be sent now: first to those for whom the least is under way."""
        platform = self._platform
        now = platform.clock.now()
        full = [name for name in self._busy if self._busy[name] >= self._most(name)]
        if self._under_way >= _AT_ONCE:
            return  # the end of an attempt wakes the loop
        found = await platform.db.read(store.due, now, _AT_ONCE, full)
        found.sort(key=lambda one: (self._busy[one.org_id], self._busy[one.webhook_id]))
        for one in found:
            room = min(
                self._most(one.webhook_id) - self._busy[one.webhook_id],
                _AT_ONCE_ORG - self._busy[one.org_id],
                _AT_ONCE - self._under_way,
            )
            if room <= 0:
                continue
            lease = new_id("lse")
            taken = await platform.db.write(
                store.claim, one.webhook_id, lease, now, now + LEASE, room
            )
            for hook, delivery in taken:
                self._count(hook, 1)
                platform.spawn(self._send(hook, delivery, lease), f"delivery {delivery.id}")

    def _most(self, name: str) -> int:
        """How many attempts may be under way for an org, or for a webhook."""
        if name.startswith("org_"):
            return _AT_ONCE_ORG
        return _AT_ONCE_FAILING if name in self._failing else _AT_ONCE_EACH

    def _count(self, hook: Hook, change: int) -> None:
        self._under_way += change
        for name in (hook.id, hook.org_id):
            self._busy[name] += change
            if self._busy[name] <= 0:
                del self._busy[name]

    async def sweep(self) -> None:
        """Forget what is old, and give up receivers for which too much waits."""
        platform = self._platform
        now = platform.clock.now()
        await platform.db.write(store.forget_old, now - KEPT)
        if len(self._failing) > _REMEMBERED:  # most of them are long gone
            self._failing.clear()
        for webhook_id in await platform.db.read(store.overfull, MOST_WAITING):
            reason = f"more than {MOST_WAITING} events waited to be sent"
            await platform.db.write(store.disable, webhook_id, reason, now)

    async def _send(self, hook: Hook, delivery: Delivery, lease: str) -> None:
        try:
            outcome = await attempt(self._platform, hook, delivery)
            self._platform.meters.webhook(arrived=outcome.arrived)
            (self._failing.discard if outcome.arrived else self._failing.add)(hook.id)
            await settle(self._platform, hook, delivery, lease, outcome, delivery.attempts + 1)
        finally:
            self._count(hook, -1)
            self._platform.bus.signal(store.TOPIC)


async def attempt(platform: Platform, hook: Hook, delivery: Delivery) -> Outcome:
    """Send it once."""
    sealed = Sealed(hook.key_id, hook.sealed)
    try:
        secret = platform.vault.open(sealed, LABEL, hook.org_id, hook.id)
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
        if state == "failed":
            store.hold(conn, hook.id)  # it is to be disabled: the webhook before its deliveries
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
