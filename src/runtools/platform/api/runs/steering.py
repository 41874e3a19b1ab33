"""What a person says to a run that is under way: written into the run's log, once."""

from __future__ import annotations

from datetime import datetime

from runtools.platform.api.runs import log, store
from runtools.platform.api.runs.log import New
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.core.runs import ended
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.runs import RunSteer


def key_of(op: str) -> str:
    """Under which key what an act says stands in the log."""
    return log.own_key("steer", op)


def say(
    conn: Transaction, record: Record, wanted: RunSteer, op: str, now: datetime, usual: Amounts
) -> tuple[Record, list[Event]]:
    """Append it to the log of a run whose row is locked, and wake the run.

    Raises:
        RunEnded: the run is over; its thread goes on with another.
    """
    key = key_of(op)
    if not store.under(conn, record, [key]) and store.is_over(record):
        raise ended(record.id, record.status)
    data = {
        "role": "user",
        "text": wanted.message,
        "images": [image.model_dump(mode="json") for image in wanted.images],
        "turn": record.iterations,
        "steering": wanted.mode,
    }
    grown = log.append(conn, record, [New(key, "message", data)], now, usual)
    return log.wake(conn, grown.record, now), grown.fresh
