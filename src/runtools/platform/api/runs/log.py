"""Growing a run's log: events, what they say of the run, and what it cost, in one transaction.

Everything here is done under the lock of the run's row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue, ValidationError

from runtools.errors import RunToolsError, TooLarge
from runtools.platform.api.limits import store as limits
from runtools.platform.api.limits.rules import exceeded
from runtools.platform.api.points import reach
from runtools.platform.api.runs import look, rules, store
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.api.webhooks import store as webhooks
from runtools.platform.core import runs as states
from runtools.platform.core import spending
from runtools.platform.core.ports.worker import OWN_KEYS
from runtools.platform.core.runs import Move, Status
from runtools.platform.kit import http
from runtools.platform.kit.crypto import digest
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.runs import Done, Message, RunUsage, ToolCall, ToolResult

MAX_EVENT_BYTES = 12 * 1024 * 1024
"""What readers take in one piece; pictures included."""
MAX_WIRE_BYTES = 32 * 1024 * 1024
"""What no reader sees: with the event it fits into a frame of the worker port."""
_LONGEST_KEY = 128
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class New:
    """An event to be appended."""

    key: str
    type: str
    data: Mapping[str, Any]
    wire: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Grown:
    """What came of it.

    Attributes:
        record: the run as it is now.
        events: what stands under the keys that were given, in their order.
        fresh: those of them that were not there before.
        exceeded: which budget of the org is used up, in words.
    """

    record: Record
    events: list[Event]
    fresh: list[Event]
    exceeded: str | None = None


def append(
    conn: Transaction,
    record: Record,
    events: Sequence[New],
    now: datetime,
    usual: Amounts,
    found: Mapping[str, Event] | None = None,
) -> Grown:
    """Append what is not there yet under its key.

    Args:
        found: what is `standing` there, where that has been looked up under the same lock.

    Raises:
        InvalidRequest: an event has not its form.
        TooLarge: one is larger than readers take.
    """
    there = dict(standing(conn, record, events) if found is None else found)
    fresh: list[Event] = []
    grown, last = record, record.last_seq
    for one in events:
        if one.key in there:
            continue
        grown, data = _taken_in(grown, one, now)
        wire = None if one.wire is None else json.dumps(one.wire, separators=(",", ":"))
        _check_size(f"the event {one.key}", data, MAX_EVENT_BYTES)
        _check_size(f"the wire of the event {one.key}", wire or "", MAX_WIRE_BYTES)
        last += 1
        made = Event(record.id, last, one.key, one.type, now, data, wire)
        there[one.key] = made
        fresh.append(made)
    if fresh:
        grown = replace(grown, last_seq=last)
        store.put(conn, grown, fresh)
        store.change(conn, record, _changes(record, grown))
        reach("api.run.appended")
    if grown.ended_at is not None and record.ended_at is None:
        announce(conn, grown, now)
    over = _spend(conn, record, fresh, now, usual)
    return Grown(grown, [there[one.key] for one in events], fresh, over)


def standing(conn: Transaction, record: Record, events: Sequence[New]) -> dict[str, Event]:
    """What stands in a run's log in place of these events, by their keys.

    A call has one result. Where its front end has given one, that stands for what a worker that has not
    heard of it yet says in the same moment, because the run is cancelled.
    """
    given = {
        one.key: own_key("result", str(one.data.get("callId")))
        for one in events
        if one.type == "tool-result"
    }
    there = store.under(conn, record, [*(one.key for one in events), *given.values()])
    twins = {key: there[twin] for key, twin in given.items() if twin in there}
    return {**twins, **{one.key: there[one.key] for one in events if one.key in there}}


def _check_size(what: str, text: str, limit: int) -> None:
    if len(text) > limit // 4 and (size := len(text.encode())) > limit:
        raise TooLarge(
            f"{what} has {size} bytes; it may have {limit}",
            hint="cut what a tool gives back, or leave pictures out",
            details={"limitBytes": limit},
        )


def _spend(
    conn: Transaction, record: Record, fresh: Sequence[Event], now: datetime, usual: Amounts
) -> str | None:
    """Add what requests took to what the org spent; which of its budgets that has used up, in words."""
    took = [RunUsage.model_validate_json(one.data) for one in fresh if one.type == "usage"]
    if not took:
        return None
    tokens = sum(spending.tokens(one) for one in took)
    nano = sum(int(rules.usd(one.cost_usd) * rules.NANO) for one in took)
    sums = store.spend(conn, record, rules.month(now), tokens, nano)
    return exceeded(limits.limits(conn, record.org_id, usual), *sums)


def over_budget(conn: Transaction, org_id: str, now: datetime, usual: Amounts) -> str | None:
    """Which budget of the month the org has used up, in words."""
    allowed = limits.limits(conn, org_id, usual)
    return exceeded(allowed, *store.spent(conn, org_id, rules.month(now)))


def drop(
    conn: Transaction,
    record: Record,
    status: Status,
    now: datetime,
    usual: Amounts,
    error: RunToolsError | None = None,
) -> Grown:
    """End a run that nobody drives, or can; a call that has no result yet gets one that says so."""
    why = None
    if error is not None:
        why = {"code": error.code, "message": error.message, "hint": error.hint}
    end = {"status": status, "output": None, "error": why}
    return append(
        conn, record, [*_dangling(conn, record), New("api:done", "done", end)], now, usual
    )


def wait(conn: Transaction, record: Record, now: datetime) -> Record:
    """Let go of a run until somebody wakes it."""
    states.check(Move.WAIT, record.status, record.id)
    last = record.last_seq
    fronts = open_fronts(conn, record, last) and not open_approvals(conn, record, last)
    awaits = "result" if fronts else "approval"
    resting = replace(record, status=Status.WAITING, awaits=awaits, driven_to=0, takeovers=0)
    resting = _let_go(resting, now)
    store.change(conn, record, _changes(record, resting))
    announce(conn, resting, now)
    return resting


def wake(conn: Transaction, record: Record, now: datetime) -> Record:
    """Offer a waiting run anew; any other stays as it is."""
    if record.status != Status.WAITING:
        return record
    return _offered(conn, record, Move.WAKE, now, record)


def requeue(
    conn: Transaction,
    record: Record,
    now: datetime,
    *,
    lost: bool = True,
    until: datetime | None = None,
) -> Record:
    """Offer a run anew whose worker is gone; what it had begun may be under way, or done.

    Args:
        lost: whether that may be for what the run itself did to it: it has neither ended in order nor been
            away for a while.
        until: when its worker was last heard of: whatever time went by since, nobody drove it; None: now.
    """
    stood_still = record.driven_to == record.last_seq
    takeovers = (record.takeovers if stood_still else 0) + lost
    left = replace(record, driven_to=record.last_seq, takeovers=takeovers)
    return _offered(conn, _let_go(left, until or now), Move.REQUEUE, now, record)


def announce(conn: Transaction, record: Record, now: datetime) -> None:
    """Tell the org's webhooks how a run stands."""
    told = look.look(record).decode()
    about = f'{{"run":{told}}}'
    webhooks.tell(conn, webhooks.News(record.org_id, f"run.{record.status}", now, about))


def _offered(
    conn: Transaction, record: Record, move: Move, now: datetime, before: Record
) -> Record:
    status = states.check(move, record.status, record.id)
    offered = replace(record, status=status, lease=record.lease + 1, queued_at=now)
    store.change(conn, record, _changes(before, offered))
    return offered


def _let_go(record: Record, until: datetime) -> Record:
    """Nobody has driven it since then."""
    spent = 0
    if record.taken_at is not None and record.worker_id is not None:
        spent = max(0, (until - record.taken_at) // _MILLISECOND)
    return replace(record, worker_id=None, token_digest=None, active_ms=record.active_ms + spent)


def _taken_in(record: Record, one: New, now: datetime) -> tuple[Record, str]:
    """The run after an event, and the event's data as it is kept."""
    try:
        if one.type == "usage":
            return _used(record, one)
        if one.type == "done":
            return _done(record, one, now)
        data = look.payload(one.type, one.data)
    except ValidationError as exc:
        raise http.invalid(
            [
                {**error, "loc": ("events", one.key, *error["loc"])}
                for error in exc.errors(include_url=False, include_input=False)
            ]
        ) from None
    if isinstance(data, Message) and data.role == "assistant" and data.turn > record.iterations:
        record = replace(record, iterations=data.turn)
    return record, look.text(data)


def _used(record: Record, one: New) -> tuple[Record, str]:
    more = RunUsage.model_validate(one.data)
    rules.usd(more.cost_usd)  # whether it is an amount of money
    total = spending.added(RunUsage.model_validate(record.usage), more)
    data = look.payload("usage", {**one.data, "total": total})
    return replace(record, usage=total.model_dump(mode="json", by_alias=False)), look.text(data)


def _done(record: Record, one: New, now: datetime) -> tuple[Record, str]:
    sums = {"usage": record.usage, "iterations": record.iterations}
    data = Done.model_validate({**one.data, **sums})
    move = Move.FINISH if record.status == Status.RUNNING else Move.DROP
    status = states.check(move, record.status, record.id, data.status)
    error = None if data.error is None else data.error.model_dump(mode="json", by_alias=False)
    ended = replace(
        _let_go(record, now),
        status=status,
        output=data.output,
        structured=data.structured,
        error=error,
        exceeded=data.limit,
        ended_at=now,
    )
    return ended, look.text(data)


def own_key(what: str, of: str) -> str:
    """The key of an event of the api's about something with an id of somebody else's, however long."""
    key = f"{OWN_KEYS}{what}:{of}"
    return key if len(key) <= _LONGEST_KEY else f"{OWN_KEYS}{what}::{digest(of)}"


def calls(conn: Transaction, record: Record, upto: int) -> frozenset[str]:
    """The ids of the calls that had been made when the log ended with some event."""
    found = store.of_types(conn, record, ("tool-call",))
    return frozenset(json.loads(one.data)["callId"] for one in found if one.seq <= upto)


def open_calls(
    conn: Transaction, record: Record
) -> list[tuple[ToolCall, dict[str, JsonValue], int]]:
    """Calls that have no result, each with what it is made with, which a person may have changed, and its
    place among those of its turn.
    """
    found = store.of_types(conn, record, ("tool-call", "tool-result", "approval-resolved"))
    said = [(one.type, json.loads(one.data)) for one in found]
    answered = {data["callId"] for kind, data in said if kind == "tool-result"}
    changed = {
        data["callId"]: data["arguments"] for kind, data in said if kind == "approval-resolved"
    }
    of_turn: Counter[int] = Counter()
    opened: list[tuple[ToolCall, dict[str, JsonValue], int]] = []
    for call in (ToolCall.model_validate(data) for kind, data in said if kind == "tool-call"):
        if call.call_id not in answered:
            given = changed.get(call.call_id)
            opened.append((call, call.arguments if given is None else given, of_turn[call.turn]))
        of_turn[call.turn] += 1
    return opened


def open_fronts(conn: Transaction, record: Record, upto: int) -> list[Event]:
    """Calls that the run's front end carries out and had no result when the log ended with some event."""
    if not record.has_front:
        return []
    opened = _unanswered(conn, record, upto, "tool-call", ("tool-result",))
    return [one for one in opened if json.loads(one.data).get("front")]


def closed_fronts(conn: Transaction, record: Record) -> frozenset[str]:
    """The ids of calls that the run's front end carries out and that have a result."""
    if not record.has_front:
        return frozenset()
    found = store.of_types(conn, record, ("tool-call", "tool-result"))
    said = [(one.type, json.loads(one.data)) for one in found]
    fronts = {data["callId"] for kind, data in said if kind == "tool-call" and data.get("front")}
    return frozenset(
        data["callId"] for kind, data in said if kind == "tool-result" and data["callId"] in fronts
    )


def open_approvals(conn: Transaction, record: Record, upto: int) -> list[Event]:
    """What a person was asked and had not answered when the log ended with some event."""
    answers = ("approval-resolved", "tool-result")
    return _unanswered(conn, record, upto, "approval-requested", answers)


def _unanswered(
    conn: Transaction, record: Record, upto: int, asks: str, answers: tuple[str, ...]
) -> list[Event]:
    """Of events of one type about calls, those that none of the others has answered by some event."""
    asked: dict[str, Event] = {}
    for one in store.of_types(conn, record, (asks, *answers)):
        if one.seq > upto:
            continue
        call_id = json.loads(one.data)["callId"]
        if one.type == asks:
            asked[call_id] = one
        else:
            asked.pop(call_id, None)
    return list(asked.values())


def _dangling(conn: Transaction, record: Record) -> list[New]:
    """Results for calls that have none."""
    return [
        New(
            own_key("dropped", call.call_id),
            "tool-result",
            ToolResult(
                call_id=call.call_id,
                name=call.name,
                output="The run was ended before this was done.",
                failed=True,
                duration_ms=0,
                turn=call.turn,
            ).model_dump(mode="json"),
        )
        for call, _, _ in open_calls(conn, record)
    ]


def _changes(before: Record, after: Record) -> dict[str, Any]:
    names = Record.__dataclass_fields__
    return {
        name: getattr(after, name)
        for name in names
        if getattr(after, name) != getattr(before, name)
    }
