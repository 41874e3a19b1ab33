"""Numbers that lie in the database. They count over all orgs: for the operator alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.api.webhooks.tables import deliveries, webhooks


@dataclass(frozen=True, slots=True)
class Totals:
    """How many there are.

    Attributes:
        sandboxes: by state, those that live.
        webhooks: by whether they are enabled.
        pending: events in the outbox.
        oldest: when the longest waiting of them was written.
    """

    sandboxes: dict[str, int]
    webhooks: dict[bool, int]
    pending: int
    oldest: datetime | None


def totals(conn: Connection) -> Totals:
    """Count."""
    alive = (
        select(sandboxes.c.state, func.count())
        .where(sandboxes.c.state != "stopped")
        .group_by(sandboxes.c.state)
    )
    hooks = select(webhooks.c.enabled, func.count()).group_by(webhooks.c.enabled)
    waiting = select(func.count(), func.min(deliveries.c.created_at)).where(
        deliveries.c.state == "pending"
    )
    pending, oldest = conn.execute(waiting).one()
    return Totals(
        sandboxes={str(state): int(count) for state, count in conn.execute(alive)},
        webhooks={bool(enabled): int(count) for enabled, count in conn.execute(hooks)},
        pending=int(pending),
        oldest=oldest,
    )
