"""Taking in what is seen of sandboxes: the one place where observations become rows and ledger lines.

Only newer news changes a row; older news still gets its line in the ledger. A stopped sandbox stays
stopped: should a host report it alive again, the wish that it end is renewed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from runtools.platform.api.guests import store as guests
from runtools.platform.api.ledger import store as ledger
from runtools.platform.api.ledger.store import News
from runtools.platform.api.sandboxes import store
from runtools.platform.api.sandboxes.look import look
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.snapshots import store as snapshots
from runtools.platform.api.usage import store as usage
from runtools.platform.api.webhooks import store as webhooks
from runtools.platform.api.webhooks.kinds import kind
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import Observed
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.sandboxes import Cause, Ending
from runtools.sdk.shapes.webhooks import EventType

PLATFORM = "platform"
"""The actor of what the platform does by itself."""


def observe(conn: Transaction, observed: Observed) -> Record | None:
    """Take in a host's report; returns the row as it is now, or None where no record bears the id."""
    record = store.locked(conn, observed.sandbox_id)
    if record is None:
        return None
    place = (observed.epoch, observed.seq)
    usage.moved(conn, record.id, place, observed.at, observed.state)
    news = News(
        at=observed.at,
        state=observed.state,
        operation=observed.operation,
        cause=observed.cause,
        actor=observed.actor[:64],
        detail=_detail(observed),
        place=place,
    )
    if place <= (record.epoch, record.seq):
        _late(conn, record, news, place)
        return record
    if record.state == "stopped" and observed.state != "stopped":
        return _risen(conn, record, observed)
    after = as_seen(record, observed)
    moved = (after.state, after.operation) != (record.state, record.operation)
    store.change(conn, record.id, _changed(record, after))
    if _is_over(after):
        usage.given_up(conn, record.id, observed.at)
        guests.forget(conn, record.id)
        snapshots.gone_with(conn, record.id)
    if moved or after.ending != record.ending:
        stands = (record.state, record.operation), (after.state, after.operation)
        _tell(conn, after, news, kind(*stands, failed="failed" in observed.detail))
    return after


def ended(
    conn: Transaction, record: Record, cause: Cause, reason: str, actor: str, now: datetime
) -> Record:
    """The api itself finds that the sandbox has ended (refused at birth, or unknown to its host)."""
    ending = Ending(cause=cause, reason=reason).model_dump(mode="json")
    after = replace(
        record,
        state="stopped",
        operation=None,
        queue=None,
        ending=ending,
        stopped_at=now,
        paused_at=None,
    )
    store.change(conn, record.id, _changed(record, after))
    usage.moved(conn, record.id, None, now, "stopped")
    usage.given_up(conn, record.id, now)
    guests.forget(conn, record.id)
    snapshots.gone_with(conn, record.id)
    news = News(now, "stopped", None, cause, actor, {"reason": reason})
    _tell(conn, after, news, "sandbox.stopped")
    return after


def end(
    conn: Transaction, sandbox_id: str, cause: Cause, reason: str, actor: str, now: datetime
) -> Record | None:
    """The same by id; one that has ended already stays as it is."""
    record = store.locked(conn, sandbox_id)
    if record is None or record.state == "stopped":
        return record
    return ended(conn, record, cause, reason, actor, now)


def born(conn: Transaction, record: Record) -> None:
    """The first line of a sandbox's ledger."""
    news = News(
        at=record.created_at,
        state=record.state,
        operation=record.operation,
        cause="request",
        actor=record.wish_actor,
        detail={"born": record.born, "parentId": record.parent_id},
    )
    _tell(conn, record, news, "sandbox.created")


def _tell(conn: Transaction, record: Record, news: News, event: EventType | None) -> None:
    """A line in the ledger, and what it means to those outside, in one transaction."""
    shown = look(record).decode()
    number = ledger.append(conn, record, news, shown)
    if event is not None:
        webhooks.announce(
            conn,
            webhooks.Event(
                org_id=record.org_id,
                sandbox_id=record.id,
                type=event,
                ledger_id=number,
                at=news.at,
                cause=news.cause,
                actor=news.actor,
                look=shown,
            ),
        )


def as_seen(record: Record, observed: Observed) -> Record:
    """What a row becomes by a report; one that is as new already, or has stopped for good, stays."""
    if (observed.epoch, observed.seq) <= (record.epoch, record.seq):
        return record
    if record.state == "stopped" and observed.state != "stopped":
        return record
    ending = observed.ending
    stopped = observed.state == "stopped"
    after = replace(
        record,
        epoch=observed.epoch,
        seq=observed.seq,
        state=observed.state,
        operation=observed.operation,
        isolation=observed.isolation or record.isolation,
        started_from=observed.started_from or record.started_from,
        timings=_dump(observed.timings) or record.timings,
        queue=_dump(observed.queue),
        durable=observed.durable,
        ending=_dump(ending) or record.ending,
        started_at=record.started_at or (observed.at if observed.state == "running" else None),
        paused_at=None if observed.state != "paused" else (record.paused_at or observed.at),
        stopped_at=None if not stopped else (record.stopped_at or observed.at),
        missed_seq=None,
    )
    # Its first report says that the host has the order in its journal; its end, that all is over.
    if stopped or (record.epoch < 0 and record.generation == 1):
        after = replace(after, wish_open=False)
    return after


def _changed(record: Record, after: Record) -> dict[str, Any]:
    return {
        name: getattr(after, name)
        for name in Record.__slots__
        if getattr(after, name) != getattr(record, name)
    }


def _is_over(record: Record) -> bool:
    """Whether nothing of it can be started again: it has ended, and its disk is not kept."""
    return record.state == "stopped" and (record.ending or {}).get("recoverable_until") is None


def _late(conn: Transaction, record: Record, news: News, place: tuple[int, int]) -> None:
    """News from before what is known: a line in the ledger if it tells of a move, and no more."""
    if place == (record.epoch, record.seq) or ledger.holds(conn, record.id, place):
        return
    if ledger.before(conn, record.id, place) != (news.state, news.operation):
        ledger.append(conn, record, news, None)


def _risen(conn: Transaction, record: Record, observed: Observed) -> Record:
    values = {
        "epoch": observed.epoch,
        "seq": observed.seq,
        "wanted": "stopped",
        "generation": record.generation + 1,
        "wish_op": new_id("opn"),
        "wish_actor": PLATFORM,
        "wish_open": True,
        "wished_at": observed.at,
    }
    store.change(conn, record.id, values)
    return replace(record, **values)  # type: ignore[arg-type]


def _detail(observed: Observed) -> dict[str, Any]:
    detail = dict(observed.detail)
    if observed.ending is not None:
        detail["ending"] = observed.ending.model_dump(mode="json", by_alias=True)
    if observed.started_from is not None and observed.timings is not None:
        detail["startedFrom"] = observed.started_from
    return detail


def _dump(shape: Any) -> dict[str, Any] | None:
    return None if shape is None else dict(shape.model_dump(mode="json", by_alias=False))
