"""What a person decides on a call that waits: written into the run's log, once."""

from __future__ import annotations

import json
from datetime import datetime

from runtools.errors import AlreadyDecided, Conflict, NotFound
from runtools.platform.api.runs import log, store
from runtools.platform.api.runs.log import New
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.core.runs import ended
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.runs import RunApproval

_ASKED, _DECIDED, _CLOSED = "approval-requested", "approval-resolved", "tool-result"


def decide(
    conn: Transaction,
    record: Record,
    wanted: RunApproval,
    who: str,
    now: datetime,
    usual: Amounts,
) -> tuple[Record, list[Event]]:
    """Append a decision to the log of a run whose row is locked, and wake the run.

    Raises:
        NotFound: no call of that id waits, or ever has.
        AlreadyDecided: it was decided on otherwise.
        Conflict: it has its result already.
        RunEnded: the run is over.
    """
    found = {
        one.type: one
        for one in store.of_types(conn, record, (_ASKED, _DECIDED, _CLOSED))
        if json.loads(one.data)["callId"] == wanted.call_id
    }
    if _ASKED not in found:
        raise NotFound(
            f"no call {wanted.call_id!r} of {record.id} waits for approval",
            hint=f"GET /v1/runs/{record.id}/events shows which do",
        )
    if (before := found.get(_DECIDED)) is not None:
        _check_same(wanted, before)
        return record, []
    if store.is_over(record):
        raise ended(record.id, record.status)
    if _CLOSED in found:
        raise Conflict(
            f"call {wanted.call_id!r} of {record.id} waits no more: it was broken off",
            hint=f"GET /v1/runs/{record.id}/events shows what waits now",
        )
    said = {**wanted.model_dump(mode="json", by_alias=False), "actor": who}
    new = New(log.own_key("approval", wanted.call_id), _DECIDED, said)
    grown = log.append(conn, record, [new], now, usual)
    return log.wake(conn, grown.record, now), grown.fresh


def _check_same(wanted: RunApproval, before: Event) -> None:
    """A decision that was made already is answered, where it is the same.

    Raises:
        AlreadyDecided: it is another one.
    """
    said = json.loads(before.data)
    heard = wanted.reason in (None, said["reason"])  # else the model was not told what it should be
    if (said["decision"], said["arguments"]) == (wanted.decision, wanted.arguments) and heard:
        return
    decided = {name: said[name] for name in ("decision", "actor", "reason", "arguments")}
    told = f": {said['reason']}" if said["reason"] else ""
    more = ", with other arguments" if said["arguments"] is not None else ""
    how = f"{said['decision']}{more}, by {said['actor']}{told}"
    raise AlreadyDecided(
        f"call {wanted.call_id!r} was decided on already: {how}",
        hint="what was decided first counts",
        details=decided,
    )
