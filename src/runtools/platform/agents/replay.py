"""Taking up what was said before: the logs of a thread and of a run, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

from runtools.platform.agents.extent import Extent
from runtools.platform.agents.history import History
from runtools.platform.agents.link import Link
from runtools.platform.core.ports.worker import Assignment, Logged


async def earlier_runs(link: Link, given: Assignment, lease: int, history: History) -> Extent:
    """Take up the runs before this one; returns how large they have made the conversation."""
    extent, run_id = Extent(), ""
    async for event in _earlier(link, given, lease):
        if run_id and event.run_id != run_id:
            history.end()
        run_id = event.run_id
        history.take([event])
        extent.learn(event)
    if run_id:
        history.end()
    return extent


async def own_log(
    link: Link, run_id: str, lease: int, first: list[Logged]
) -> AsyncIterator[Logged]:
    """The events of a run's log, of which the beginning is known."""
    last, more = 0, True
    for event in first:
        yield event
        last = event.seq or last
    while more:
        news = await link.read(run_id, lease, last)
        for event in news.events:
            yield event
            last = event.seq or last
        more = news.more


async def _earlier(link: Link, given: Assignment, lease: int) -> AsyncIterator[Logged]:
    events, more = given.earlier, given.earlier_goes_on
    while True:
        for event in events:
            yield event
        if not more:
            return
        last = events[-1]
        piece = await link.earlier(given.run.id, lease, last.run_id, last.seq or 0)
        events, more = piece.events, piece.more
