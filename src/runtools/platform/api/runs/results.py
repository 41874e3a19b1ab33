"""What a front end says came of calls that it has carried out: written into the run's log, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from runtools.platform.api.runs import log, store
from runtools.platform.api.runs.log import New
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.runs import ToolCall, ToolImage, ToolResult


@dataclass(frozen=True, slots=True)
class Given:
    """What came of a call, as a model can be shown it."""

    output: str
    failed: bool = False
    images: tuple[ToolImage, ...] = ()


def give(
    conn: Transaction,
    record: Record,
    results: Mapping[str, Given],
    now: datetime,
    usual: Amounts,
) -> tuple[Record, list[Event]]:
    """Append them to the log of a run whose row is locked, and wake the run when there are all.

    Of other calls nothing is taken in: a front end says again what it was told of them itself.

    Args:
        results: by the ids of their calls.
    """
    waiting = [
        ToolCall.model_validate_json(one.data)
        for one in log.open_fronts(conn, record, record.last_seq)
    ]
    news = [_event(call, results[call.call_id]) for call in waiting if call.call_id in results]
    if not news:
        return record, []
    grown = log.append(conn, record, news, now, usual)
    after = grown.record
    if len(news) == len(waiting):
        after = log.wake(conn, after, now)
    return after, grown.fresh


def last_of(conn: Transaction, record: Record, call_ids: list[str]) -> int | None:
    """The number of the last of these results that a front end has given; None: it has given none."""
    there = store.under(conn, record, [_key(call_id) for call_id in call_ids])
    return max((one.seq for one in there.values()), default=None)


def _event(call: ToolCall, given: Given) -> New:
    said = ToolResult(
        call_id=call.call_id,
        name=call.name,
        output=given.output,
        failed=given.failed,
        images=list(given.images),
        duration_ms=0,
        turn=call.turn,
    )
    return New(_key(call.call_id), "tool-result", said.model_dump(mode="json"))


def _key(call_id: str) -> str:
    return log.own_key("result", call_id)
