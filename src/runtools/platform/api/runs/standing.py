"""What runs that nobody drives wait for, and runs as they are shown with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from runtools.platform.api.platform import Platform
from runtools.platform.api.runs import store
from runtools.platform.api.runs.look import look
from runtools.platform.api.runs.tables import Record
from runtools.platform.api.workers import store as workers
from runtools.platform.core.ports.worker import GRACE_SECONDS
from runtools.platform.core.runs import Status
from runtools.sdk.shapes.runs import WaitsFor

_GRACE = timedelta(seconds=GRACE_SECONDS)


async def shown(platform: Platform, record: Record) -> bytes:
    """A run as the public shape's JSON, with what it waits for."""
    [one] = await all_shown(platform, [record])
    return one


async def all_shown(platform: Platform, records: Sequence[Record]) -> list[bytes]:
    """Runs in that form."""
    queued = [one.id for one in records if one.status == Status.QUEUED]
    waits: dict[str, WaitsFor] = {}
    if queued:
        free: WaitsFor = "room" if await has_workers(platform) else "worker"
        behind = await platform.db.read(store.behind, queued)
        waits = {run_id: "turn" if run_id in behind else free for run_id in queued}
    return [look(one, waits.get(one.id)) for one in records]


async def has_workers(platform: Platform) -> bool:
    """Whether any worker is connected, to whichever api process."""
    if platform.workers.heard(platform.clock.monotonic()):
        return True
    since = platform.clock.now() - _GRACE
    return any(at >= since for at in (await platform.db.read(workers.known)).values())


async def warnings(platform: Platform) -> list[str]:
    """What a person should know about runs, in sentences."""
    counts = await platform.db.read(store.counts)
    if not counts.get(Status.QUEUED) or await has_workers(platform):
        return []
    return ["runs of agents wait, and no worker is connected: runtools status shows the parts"]
