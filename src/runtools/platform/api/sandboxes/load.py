"""Finding the sandbox that a caller means, and waiting for it to change."""

from __future__ import annotations

from collections.abc import Callable

from runtools.errors import NotFound
from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes import store
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.core.ids import is_name, is_sandbox_id
from runtools.platform.core.states import Operation, State


async def load(platform: Platform, org_id: str, ref: str) -> Record:
    """The org's sandbox of that id or name, in one query.

    Raises:
        NotFound: nobody's, or another org's: the answer does not tell which.
    """
    found = None
    if is_sandbox_id(ref):
        found = await platform.db.read(store.by_id, org_id, ref)
    elif is_name(ref):
        found = await platform.db.read(store.by_name, org_id, ref)
    if found is None:
        raise NotFound(f"no sandbox {ref[:80]!r}", hint="GET /v1/sandboxes lists those there are")
    return found


async def until(
    platform: Platform, sandbox_id: str, done: Callable[[Record], bool], seconds: float
) -> Record:
    """The sandbox's row once it is as wanted, or as it is when the time is up."""
    deadline = platform.clock.monotonic() + seconds
    with platform.bus.watching(sandbox_id) as watch:
        while True:
            record = await platform.db.read(store.get, sandbox_id)
            if record is None:
                raise NotFound(f"no sandbox {sandbox_id!r}")
            left = deadline - platform.clock.monotonic()
            if done(record) or left <= 0:
                return record
            await watch.wait(left)


def is_settled(record: Record) -> bool:
    """Whether nothing is under way: neither an operation nor its birth."""
    return record.state == "stopped" or (record.state != "creating" and record.operation is None)


def sleeps(record: Record) -> bool:
    """Whether it has to be woken for what lies inside: it is paused, or is about to be."""
    return record.state == State.PAUSED or record.operation == Operation.PAUSING
