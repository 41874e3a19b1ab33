"""Runs and events as the API shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.core.ports.worker import Logged
from runtools.platform.core.runs import Status
from runtools.platform.kit import http
from runtools.sdk.lines import one_line
from runtools.sdk.shapes.runs import PAYLOADS, Run, WaitsFor

_SAME = tuple(set(Run.model_fields) - {"usage", "error", "waits_for"})


def shape(record: Record, waits_for: WaitsFor | None = None) -> Run:
    """The row as the public shape; ``waits_for``: where its row alone does not say it."""
    same = {name: getattr(record, name) for name in _SAME}
    if record.status == Status.WAITING:
        waits_for = "result" if record.awaits == "result" else "approval"
    more = {"usage": record.usage, "error": record.error, "waits_for": waits_for}
    return Run.model_validate({**same, **more})


def look(record: Record, waits_for: WaitsFor | None = None) -> bytes:
    """The row as the public shape's JSON."""
    return http.one(shape(record, waits_for))


def payload(kind: str, data: object) -> BaseModel:
    """The data of an event as its shape.

    Raises:
        ValidationError: it has not the form of such an event.
    """
    return PAYLOADS[kind].model_validate(data)


def text(data: BaseModel) -> str:
    """A shape as JSON in one line."""
    return one_line(http.one(data).decode())


def event(found: Event) -> str:
    """An event as JSON."""
    return (
        f'{{"type":"{found.type}","seq":{found.seq},"runId":"{found.run_id}",'
        f'"at":"{_stamp(found.at)}","data":{found.data}}}'
    )


def written(found: Event) -> bytes:
    """An event as readers of the stream get it."""
    return f"id: {found.seq}\nevent: {found.type}\ndata: {event(found)}\n\n".encode()


def delta(kind: str, run_id: str, at: datetime, data: BaseModel) -> bytes:
    """A live piece as readers of the stream get it: it has no number, and is not asked for again."""
    said = f'{{"type":"{kind}","runId":"{run_id}","at":"{_stamp(at)}","data":{text(data)}}}'
    return f"event: {kind}\ndata: {said}\n\n".encode()


def logged(found: Sequence[Event]) -> list[Logged]:
    """Events as workers get them."""
    return [
        Logged(
            type=one.type,
            seq=one.seq,
            run_id=one.run_id,
            at=one.at,
            data=json.loads(one.data),
            key=one.key,
            wire=None if one.wire is None else json.loads(one.wire),
        )
        for one in found
    ]


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of a log as a worker gets it: `News` as JSON.

    Attributes:
        upto: the number of its last event; None: there is none.
        more: whether the log goes on after it.
    """

    text: str
    upto: int | None
    more: bool


def news(
    found: Sequence[Event], *, cancel: bool, more: bool = False, exceeded: str | None = None
) -> Written:
    """`News` of these events. They are JSON already: nothing is taken apart to be written anew."""
    events = ",".join(_logged(one) for one in found)
    said = f'"cancel":{json.dumps(cancel)},"more":{json.dumps(more)}'
    text = f'{{"events":[{events}],{said},"exceeded":{json.dumps(exceeded)}}}'
    return Written(text, found[-1].seq if found else None, more)


def _logged(found: Event) -> str:
    """An event as workers get it, as JSON."""
    return f'{event(found)[:-1]},"key":{json.dumps(found.key)},"wire":{found.wire or "null"}}}'


def _stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
