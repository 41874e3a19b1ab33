"""What can be asked of threads: naming, reading and deleting them."""

from __future__ import annotations

import json
from typing import Any

from runtools.errors import Conflict, NotFound
from runtools.platform.api.calls import Call
from runtools.platform.api.runs import look
from runtools.platform.api.runs import store as runs
from runtools.platform.api.threads import store
from runtools.platform.api.threads.tables import Thread
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.runs import PAYLOADS
from runtools.sdk.shapes.threads import ThreadMessage

_SAID = ("message", "compaction")


async def get(call: Call, thread_id: str) -> tuple[Thread, int]:
    """One of the org's, and how many runs it has."""
    return await call.platform.db.read(_get, call.org, thread_id)


async def rename(call: Call, thread_id: str, title: str | None) -> tuple[Thread, int]:
    """Another title."""

    def act(conn: Transaction) -> tuple[Thread, int]:
        store.rename(conn, call.org, thread_id[:80], title)
        return _get(conn, call.org, thread_id)

    return await call.platform.db.write(act)


async def remove(call: Call, thread_id: str) -> tuple[Thread, int]:
    """Delete a thread with its runs and all that was said in it. Its sandbox stays.

    Raises:
        Conflict: a run of it is under way.
    """

    def act(conn: Transaction) -> tuple[Thread, int]:
        thread = _found(store.locked(conn, call.org, thread_id[:80]), thread_id)
        mine = runs.of_thread(conn, call.org, thread.id)
        busy = [one.id for one in mine if not runs.is_over(one)]
        if busy:
            raise Conflict(
                f"a run of {thread.id} is under way: {busy[0]}",
                hint=f"cancel it first: runtools runs cancel {busy[0]}",
                details={"runs": busy},
            )
        runs.remove_of(conn, call.org, thread.id)
        store.remove(conn, call.org, thread.id)
        return thread, len(mine)

    return await call.platform.db.write(act)


async def messages(call: Call, thread_id: str) -> list[ThreadMessage]:
    """All that was said in a thread, by people and the model, in order; compactions among it."""
    thread, _ = await get(call, thread_id)
    found = await call.platform.db.read(runs.logs, call.org, thread.id, _SAID)
    return [
        ThreadMessage.model_validate(
            {**json.loads(one.data), "runId": one.run_id, "seq": one.seq, "at": one.at}
            | (
                {"role": "summary", "text": json.loads(one.data)["summary"]}
                if one.type != "message"
                else {}
            )
        )
        for one in found
    ]


async def export(call: Call, thread_id: str) -> dict[str, Any]:
    """A thread with its runs and their whole logs."""
    thread, _ = await get(call, thread_id)
    mine = await call.platform.db.read(runs.of_thread, call.org, thread.id)
    found = await call.platform.db.read(runs.logs, call.org, thread.id, tuple(PAYLOADS))
    return {
        "thread": thread,
        "runs": [look.shape(one) for one in mine],
        "events": [json.loads(look.event(one)) for one in found],
    }


def _get(conn: Transaction, org_id: str, thread_id: str) -> tuple[Thread, int]:
    thread = _found(store.find(conn, org_id, thread_id[:80]), thread_id)
    return thread, store.count_runs(conn, org_id, thread.id)


def _found(thread: Thread | None, thread_id: str) -> Thread:
    if thread is None:
        raise NotFound(f"no thread {thread_id[:80]!r}", hint="GET /v1/threads lists them")
    return thread
