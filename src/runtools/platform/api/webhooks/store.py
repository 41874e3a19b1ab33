"""Webhooks in the database, and the outbox: a row for every event and receiver.

Rows of the outbox are written in the transaction of the ledger line that they tell of. A sender takes a
row by a lease; what it does not report back in time is anybody's again. Who locks a webhook and deliveries
of its has the webhook first.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from runtools.errors import Conflict
from runtools.platform.api.idempotency.rules import under_way
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.webhooks.tables import Delivery, Hook, deliveries, webhooks
from runtools.platform.core.ids import new_id

TOPIC = "webhooks"
"""What the bus is told when there may be something to send."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, to be told to whoever wants to know."""

    org_id: str
    sandbox_id: str
    type: str
    ledger_id: int
    at: datetime
    cause: str
    actor: str
    look: str


@dataclass(frozen=True, slots=True)
class News:
    """What receivers are told: ``data`` is JSON, and where in the order of a sandbox it has its place."""

    org_id: str
    type: str
    at: datetime
    data: str
    sandbox_id: str | None = None
    ledger_id: int | None = None


_HOOK = [webhooks.c[field.name] for field in fields(Hook)]
_DELIVERY = [deliveries.c[field.name] for field in fields(Delivery)]


# --- webhooks ---


def made_by(conn: Connection, org_id: str, op: str) -> Hook | None:
    """The webhook that an act has made."""
    query = select(*_HOOK).where(webhooks.c.org_id == org_id, webhooks.c.op == op)
    row = conn.execute(query).first()
    return None if row is None else Hook(*row)


def add(conn: Connection, hook: Hook, most: int) -> None:
    """A new webhook.

    Raises:
        Conflict: the org has as many as it may have.
        Unavailable: the same act is making it at this moment.
    """
    orgs.lock(conn, hook.org_id)  # one at a time counts and adds
    count = conn.scalar(select(func.count()).where(webhooks.c.org_id == hook.org_id))
    if int(count or 0) >= most:
        raise Conflict(f"there are {most} webhooks already", hint="delete one of them first")
    try:
        conn.execute(insert(webhooks).values(**asdict(hook)))
    except IntegrityError as exc:
        raise under_way() from exc


def all_of(conn: Connection, org_id: str) -> list[Hook]:
    """The org's webhooks, the oldest first."""
    query = (
        select(*_HOOK)
        .where(webhooks.c.org_id == org_id)
        .order_by(webhooks.c.created_at, webhooks.c.id)
    )
    return [Hook(*row) for row in conn.execute(query)]


def find(conn: Connection, org_id: str, webhook_id: str) -> Hook | None:
    """The org's webhook of that id."""
    query = select(*_HOOK).where(webhooks.c.org_id == org_id, webhooks.c.id == webhook_id)
    row = conn.execute(query).first()
    return None if row is None else Hook(*row)


def enable(conn: Connection, org_id: str, webhook_id: str) -> Hook | None:
    """Let events flow again."""
    conn.execute(
        update(webhooks)
        .where(webhooks.c.org_id == org_id, webhooks.c.id == webhook_id)
        .values(enabled=True, disabled_reason=None)
    )
    return find(conn, org_id, webhook_id)


def remove(conn: Connection, org_id: str, webhook_id: str) -> Hook | None:
    """Delete a webhook and its deliveries; returns what it was.

    It is held first: whoever writes an event down for it does so before, or finds it gone.
    """
    mine = (webhooks.c.org_id == org_id) & (webhooks.c.id == webhook_id)
    row = conn.execute(select(*_HOOK).where(mine).with_for_update()).first()
    if row is None:
        return None
    conn.execute(delete(deliveries).where(_of(org_id, webhook_id)))
    conn.execute(delete(webhooks).where(mine))
    return Hook(*row)


def hold(conn: Connection, webhook_id: str) -> None:
    """Nobody else changes it, if it is there, until the transaction's end."""
    conn.execute(select(webhooks.c.id).where(webhooks.c.id == webhook_id).with_for_update())


def disable(conn: Connection, webhook_id: str, reason: str, now: datetime) -> None:
    """Send it nothing any more; what waits has failed."""
    conn.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook_id, webhooks.c.enabled)
        .values(enabled=False, disabled_reason=reason)
    )
    conn.execute(
        update(deliveries)
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.state == "pending")
        .values(
            state="failed",
            error="the webhook was disabled",
            next_at=None,
            lease=None,
            leased_until=None,
            finished_at=now,
        )
    )


# --- the outbox ---


def announce(conn: Connection, event: Event) -> None:
    """Write the event down for every receiver of the org that wants it.

    The sandbox's JSON has been written when the ledger's line was.
    """
    about = json.dumps({"cause": event.cause, "actor": event.actor}, separators=(",", ":"))
    data = f'{about[:-1]},"sandbox":{event.look}}}'
    place = (event.sandbox_id, event.ledger_id)
    tell(conn, News(event.org_id, event.type, event.at, data, *place))


def tell(conn: Connection, news: News) -> None:
    """Write something down for every receiver of the org that wants to know.

    None of them is disabled before this is committed: else it would wait for one that is.
    """
    query = (
        select(webhooks.c.id, webhooks.c.events)
        .where(webhooks.c.org_id == news.org_id, webhooks.c.enabled)
        .order_by(webhooks.c.id)
        .with_for_update(read=True)
    )
    wanted = [row.id for row in conn.execute(query) if not row.events or news.type in row.events]
    if not wanted:
        return
    event_id = new_id("evt")
    head = {"id": event_id, "type": news.type, "timestamp": news.at.isoformat()}
    body = f'{json.dumps(head, separators=(",", ":"))[:-1]},"data":{news.data}}}'
    rows = [
        asdict(
            Delivery(
                id=new_id("dlv"),
                webhook_id=webhook_id,
                event_id=event_id,
                type=news.type,
                body=body,
                created_at=news.at,
                sandbox_id=news.sandbox_id,
                ledger_id=news.ledger_id,
                next_at=news.at,
            )
        )
        for webhook_id in wanted
    ]
    conn.execute(insert(deliveries), rows)


def put_once(conn: Connection, delivery: Delivery) -> Delivery | None:
    """A delivery that was asked for, unless the same act has asked before. None: its webhook is gone."""
    held = select(webhooks.c.id).where(webhooks.c.id == delivery.webhook_id)
    if conn.scalar(held.with_for_update(read=True)) is None:
        return None
    mine = (deliveries.c.id == delivery.id) & (deliveries.c.webhook_id == delivery.webhook_id)
    known = conn.execute(select(*_DELIVERY).where(mine)).first()
    if known is not None:
        return Delivery(*known)
    conn.execute(insert(deliveries).values(**asdict(delivery)))
    return delivery


def find_delivery(
    conn: Connection, org_id: str, webhook_id: str, delivery_id: str
) -> Delivery | None:
    """A delivery of the org's webhook."""
    query = select(*_DELIVERY).where(_of(org_id, webhook_id), deliveries.c.id == delivery_id)
    row = conn.execute(query).first()
    return None if row is None else Delivery(*row)


def page(
    conn: Connection,
    org_id: str,
    webhook_id: str,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Delivery]:
    """The deliveries of the org's webhook, the newest first."""
    query = select(*_DELIVERY).where(_of(org_id, webhook_id))
    if after is not None:
        at, delivery_id = after
        beside = (deliveries.c.created_at == at) & (deliveries.c.id < delivery_id)
        query = query.where(or_(deliveries.c.created_at < at, beside))
    query = query.order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(limit)
    return [Delivery(*row) for row in conn.execute(query)]


def _of(org_id: str, webhook_id: str) -> ColumnElement[bool]:
    """Deliveries of the org's webhook."""
    mine = select(webhooks.c.id).where(webhooks.c.org_id == org_id, webhooks.c.id == webhook_id)
    return deliveries.c.webhook_id.in_(mine)


@dataclass(frozen=True, slots=True)
class Due:
    """A webhook for which something may be sent now."""

    org_id: str
    webhook_id: str


def due(conn: Connection, now: datetime, limit: int, without: Collection[str] = ()) -> list[Due]:
    """Webhooks for which something may be sent now: of each org one, then of each a second …

    Those that have waited longest come first, of an org and of the orgs. ``without``: webhooks and orgs
    to pass by.
    """
    since = func.min(deliveries.c.next_at).label("since")
    turn = func.row_number().over(partition_by=webhooks.c.org_id, order_by=since).label("turn")
    waiting = (
        select(webhooks.c.org_id, deliveries.c.webhook_id, since, turn)
        .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
        .where(
            *_is_due(now),
            webhooks.c.id.not_in(without),
            webhooks.c.org_id.not_in(without),
            ~_held_up(),
        )
        .group_by(webhooks.c.org_id, deliveries.c.webhook_id)
        .subquery()
    )
    query = (
        select(waiting.c.org_id, waiting.c.webhook_id)
        .order_by(waiting.c.turn, waiting.c.since)
        .limit(limit)
    )
    return [Due(*row) for row in conn.execute(query)]


def claim(
    conn: Connection, webhook_id: str, lease: str, now: datetime, until: datetime, limit: int
) -> list[tuple[Hook, Delivery]]:
    """Take what may be sent to a webhook now: of each sandbox its earliest alone, so they stay in order.

    What another process has taken is passed by.
    """
    query = (
        select(*_DELIVERY)
        .where(*_is_due(now), deliveries.c.webhook_id == webhook_id, ~_held_up())
        .order_by(deliveries.c.next_at, deliveries.c.ledger_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken = [Delivery(*row) for row in conn.execute(query)]
    row = conn.execute(select(*_HOOK).where(webhooks.c.id == webhook_id)).first()
    if not taken or row is None:
        return []
    conn.execute(
        update(deliveries)
        .where(deliveries.c.id.in_([one.id for one in taken]))
        .values(lease=lease, leased_until=until, attempts=deliveries.c.attempts + 1)
    )
    return [(Hook(*row), one) for one in taken]


def _held_up() -> ColumnElement[bool]:
    """Whether an earlier event of the same sandbox has not arrived yet."""
    earlier = deliveries.alias("earlier")
    return exists().where(
        earlier.c.webhook_id == deliveries.c.webhook_id,
        earlier.c.sandbox_id == deliveries.c.sandbox_id,
        earlier.c.ledger_id < deliveries.c.ledger_id,
        earlier.c.state == "pending",
    )


def _is_due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    free = or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < now)
    return deliveries.c.state == "pending", deliveries.c.next_at <= now, free


def report(
    conn: Connection,
    delivery_id: str,
    lease: str,
    *,
    state: str,
    status: int | None,
    error: str | None,
    next_at: datetime | None,
    finished_at: datetime | None,
) -> bool:
    """Write down what became of an attempt; False when the lease is somebody else's by now."""
    done = conn.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id, deliveries.c.lease == lease)
        .values(
            state=state,
            status=status,
            error=error,
            next_at=next_at,
            finished_at=finished_at,
            lease=None,
            leased_until=None,
        )
    )
    return done.rowcount == 1


def forget_old(conn: Connection, before: datetime) -> None:
    """Remove deliveries that ended before a moment, but for those that somebody else is at."""
    over = (deliveries.c.state != "pending") & (deliveries.c.created_at < before)
    old = select(deliveries.c.id).where(over).with_for_update(skip_locked=True)
    conn.execute(delete(deliveries).where(deliveries.c.id.in_(old)))


def overfull(conn: Connection, most: int) -> Collection[str]:
    """Webhooks for which more than so many deliveries wait."""
    query = (
        select(deliveries.c.webhook_id)
        .where(deliveries.c.state == "pending")
        .group_by(deliveries.c.webhook_id)
        .having(func.count() > most)
    )
    return [str(row.webhook_id) for row in conn.execute(query)]
