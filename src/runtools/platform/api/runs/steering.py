"""What a person says to a run that is under way: written into the run's log, once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from runtools.platform.api.runs import log, store
from runtools.platform.api.runs.log import New
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.core.runs import ended
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.runs import RunSteer


def key_of(op: str) -> str:
    """Under which key the last of what an act says stands in the log."""
    return log.own_key("steer", op)


def say(
    conn: Transaction,
    record: Record,
    words: Sequence[RunSteer],
    op: str,
    now: datetime,
    usual: Amounts,
) -> tuple[Record, list[Event]]:
    """Append them to the log of a run whose row is locked, and wake the run.

    Raises:
        RunEnded: the run is over; its thread goes on with another.
    """
    if not store.under(conn, record, [key_of(op)]) and store.is_over(record):
        raise ended(record.id, record.status)
    earlier = [log.own_key("steer", f"{op}:{n}") for n in range(len(words) - 1)]
    news = [
        New(key, "message", _data(record, word))
        for key, word in zip([*earlier, key_of(op)], words, strict=True)
    ]
    grown = log.append(conn, record, news, now, usual)
    return log.wake(conn, grown.record, now), grown.fresh


def _data(record: Record, word: RunSteer) -> dict[str, Any]:
    return {
        "role": "user",
        "text": word.message,
        "images": [image.model_dump(mode="json") for image in word.images],
        "turn": record.iterations,
        "steering": word.mode,
    }
