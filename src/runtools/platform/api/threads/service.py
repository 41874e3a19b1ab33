"""What can be asked of threads: naming, reading and deleting them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from runtools.errors import Conflict, NotFound
from runtools.platform.api.calls import Call
from runtools.platform.api.logs import store as logs
from runtools.platform.api.logs.store import Place
from runtools.platform.api.runs import look
from runtools.platform.api.runs import store as runs
from runtools.platform.api.runs.tables import Event
from runtools.platform.api.threads import store
from runtools.platform.api.threads.tables import Thread
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.runs import PAYLOADS
from runtools.sdk.shapes.runs import Thread as Shown
from runtools.sdk.shapes.threads import ThreadMessage

_SAID = ("message", "compaction")
_SHOWN = tuple(set(Shown.model_fields) - {"runs"})
_RUNS = 50
"""How many an export reads at once."""


async def get(call: Call, thread_id: str) -> tuple[Thread, int]:
    """One of the org's, and how many runs it has."""
    return await call.platform.db.read(_get, call.org, thread_id)


async def rename(call: Call, thread_id: str, title: str | None) -> tuple[Thread, int]:
    """Another title."""

    def act(conn: Transaction) -> tuple[Thread, int]:
        store.rename(conn, call.org, thread_id[:80], title)
        return _get(conn, call.org, thread_id)

    return await call.settled(lambda done: http.one(shape(*done)), act)


async def remove(call: Call, thread_id: str) -> tuple[Thread, int]:
    """Delete a thread with its runs and all that was said in it. Its sandbox stays.

    Raises:
        Conflict: a run of it is under way.
    """

    def act(conn: Transaction) -> tuple[Thread, int]:
        thread = _found(store.locked(conn, call.org, thread_id[:80]), thread_id)
        count = store.count_runs(conn, call.org, thread.id)
        busy = runs.open_of(conn, call.org, thread.id)
        if busy:
            raise Conflict(
                f"a run of {thread.id} is under way: {busy[0]}",
                hint=f"cancel it first: runtools runs cancel {busy[0]}",
                details={"runs": busy},
            )
        runs.remove_of(conn, call.org, thread.id)
        store.remove(conn, call.org, thread.id)
        return thread, count

    return await call.settled(lambda done: http.one(shape(*done)), act)


async def messages(
    call: Call, thread_id: str, after: Place | None, limit: int
) -> tuple[list[ThreadMessage], Place | None]:
    """What was said in a thread after a place, by people and the model, compactions among it; and the place
    after which there may be more.
    """
    thread, _ = await get(call, thread_id)
    piece = await call.platform.db.read(
        logs.of_thread, call.org, thread.id, _SAID, after, None, limit
    )
    return [_message(one) for one in piece.events], piece.last if piece.more else None


def _message(event: Event) -> ThreadMessage:
    data = json.loads(event.data)
    if event.type != "message":
        data |= {"role": "summary", "text": data["summary"]}
    where = {"runId": event.run_id, "seq": event.seq, "at": event.at}
    return ThreadMessage.model_validate({**data, **where})


async def export(call: Call, thread: Thread, count: int) -> AsyncGenerator[bytes, None]:
    """A thread with its runs and their whole logs, as the JSON of one answer, a piece at a time."""
    db, org_id = call.platform.db, call.org
    yield b'{"data":{"thread":%b,"runs":[' % http.one(shape(thread, count))
    begun, run = False, None
    while True:
        above = None if run is None else (run.created_at, run.id)
        found = await db.read(runs.of_thread, org_id, thread.id, above, _RUNS)
        if not found:
            break
        yield b"," * begun + b",".join(look.look(one) for one in found)
        begun, run = True, found[-1]
    yield b'],"events":['
    begun, after = False, None
    while True:
        piece = await db.read(logs.of_thread, org_id, thread.id, tuple(PAYLOADS), after)
        if piece.events:
            yield b"," * begun + b",".join(look.event(one).encode() for one in piece.events)
            begun, after = True, piece.last
        if not piece.more:
            break
    yield b']},"meta":{"requestId":%b}}' % json.dumps(call.request_id).encode()


def shape(row: Thread, count: int) -> Shown:
    """The row as the public shape, with how many runs it has."""
    return Shown.model_validate({name: getattr(row, name) for name in _SHOWN} | {"runs": count})


def _get(conn: Transaction, org_id: str, thread_id: str) -> tuple[Thread, int]:
    thread = _found(store.find(conn, org_id, thread_id[:80]), thread_id)
    return thread, store.count_runs(conn, org_id, thread.id)


def _found(thread: Thread | None, thread_id: str) -> Thread:
    if thread is None:
        raise NotFound(f"no thread {thread_id[:80]!r}", hint="GET /v1/threads lists them")
    return thread
