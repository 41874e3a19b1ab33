"""Gathers the numbers: of this process, of the database, and of each host over the border."""

from __future__ import annotations

import asyncio

from runtools import __version__
from runtools.errors import RunToolsError
from runtools.platform.api.hosts.service import ANSWER_SECONDS
from runtools.platform.api.metrics import store
from runtools.platform.api.metrics.store import Totals
from runtools.platform.api.platform import Platform
from runtools.platform.api.runs import store as runs
from runtools.platform.core.ports.metrics import Family
from runtools.platform.core.runs import OPEN
from runtools.platform.core.states import State
from runtools.platform.kit.metering import gauge, labelled

_LIVING = (State.CREATING, State.RUNNING, State.PAUSED)


async def gather(platform: Platform) -> list[Family]:
    """All of it. A host that does not answer in time is down, and its numbers are missing."""
    ids = list(platform.hosts.ids)
    totals = await platform.db.read(store.totals)
    counted = await platform.db.read(runs.counts)
    hosts = await asyncio.gather(*(_of_host(platform, host_id) for host_id in ids))
    up = [({"part": "api", "host": ""}, 1.0)]
    found: list[Family] = []
    for host_id, told in zip(ids, hosts, strict=True):
        up.append(({"part": "host", "host": host_id}, float(told is not None)))
        found += labelled(told or [], host=host_id)
    return [
        gauge("runtools_up", "Whether a part of the platform answers", *up),
        gauge("runtools_build_info", "What is installed", ({"version": __version__}, 1)),
        *_counted(platform, totals),
        gauge(
            "runtools_runs",
            "Runs of agents that have not ended, by status",
            *(({"status": status}, counted.get(status, 0)) for status in sorted(OPEN)),
        ),
        gauge("runtools_workers", "Workers connected to this api", ({}, len(platform.workers))),
        gauge("runtools_run_readers", "Readers of runs at this api", ({}, len(platform.readers))),
        *platform.meters.told(),
        *found,
    ]


def _counted(platform: Platform, totals: Totals) -> list[Family]:
    age = 0.0
    if totals.oldest is not None:
        age = max(0.0, (platform.clock.now() - totals.oldest).total_seconds())
    return [
        gauge(
            "runtools_sandboxes",
            "Sandboxes that live, by state",
            *(({"state": one.value}, totals.sandboxes.get(one.value, 0)) for one in _LIVING),
        ),
        gauge(
            "runtools_webhooks",
            "Webhooks",
            ({"enabled": "yes"}, totals.webhooks.get(True, 0)),
            ({"enabled": "no"}, totals.webhooks.get(False, 0)),
        ),
        gauge(
            "runtools_webhook_outbox_events", "Events that wait for delivery", ({}, totals.pending)
        ),
        gauge(
            "runtools_webhook_outbox_age_seconds", "How long the oldest of them waits", ({}, age)
        ),
    ]


async def _of_host(platform: Platform, host_id: str) -> list[Family] | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await platform.hosts.port(host_id).metrics()
    except (RunToolsError, TimeoutError):
        return None
