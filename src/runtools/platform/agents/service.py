"""A worker's life: connected to the api or on its way back to it, until it is to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from pydantic_ai.models import Model

from runtools.errors import RunToolsError
from runtools.platform.agents.held import Means
from runtools.platform.agents.link import LinkLost
from runtools.platform.agents.socket import SocketLink, linked
from runtools.platform.agents.tools.around import SEARCH_URL
from runtools.platform.agents.worker import Worker
from runtools.platform.core.ports.worker import Hello, ModelAccess
from runtools.platform.kit.clock import Backoff, Clock
from runtools.platform.kit.outbound import Outbound
from runtools.platform.kit.tracing import OFF, Tracing
from runtools.sdk.client import AsyncRunTools

log = logging.getLogger(__name__)

DRAIN_SECONDS = 8.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class Post:
    """Where a worker works, and with what.

    Attributes:
        url: of the api, for the link.
        api_url: where runs reach their sandboxes; empty: the same.
        token: what it proves to the api by that it is a worker.
        id: names it. One that is started in the place of another has its name: nobody waits for that one.
        slots: how many runs it drives at once.
    """

    url: str
    token: str
    id: str
    slots: int
    build: Callable[[ModelAccess], Model]
    outbound: Outbound
    clock: Clock
    search_url: str = SEARCH_URL
    api_url: str = ""
    tracing: Tracing = OFF


async def serve(post: Post, ending: asyncio.Event) -> None:
    """Work until ``ending`` is set; then let go of all runs, so that others go on with them.

    A run is left when the connection breaks and taken anew when it is there again: what it did meanwhile
    could not have been written down.
    """
    worker = Worker(post.slots)
    drove: dict[str, int] = {}
    backoff = Backoff(post.clock, first=_FIRST_PAUSE, most=_LONGEST_PAUSE)
    while not ending.is_set():
        try:
            hello = Hello(worker_id=post.id, slots=post.slots, drove=drove)
            async with linked(post.url, post.token, hello, worker.told) as link:
                backoff = Backoff(post.clock, first=_FIRST_PAUSE, most=_LONGEST_PAUSE)
                log.info("ready for %d runs at once", post.slots)
                drove = await _connected(post, worker, link, ending)
        except LinkLost as lost:
            log.debug("%s", lost)
        except RunToolsError as error:
            log.warning("%s", error)
        if not ending.is_set():
            await _first(ending.wait(), backoff.wait())


async def _connected(
    post: Post, worker: Worker, link: SocketLink, ending: asyncio.Event
) -> dict[str, int]:
    """Work until the connection is gone, or all is to end; the runs that it drove then."""
    worker.begin(
        Means(
            link,
            post.build,
            lambda token: AsyncRunTools(token, post.api_url or post.url),
            post.outbound,
            post.clock,
            post.search_url,
            post.tracing,
        )
    )
    await _first(ending.wait(), link.lost.wait())
    drove = worker.drives
    if ending.is_set() and not link.lost.is_set():
        log.info("letting go of %d runs", worker.runs)
        await worker.drain(DRAIN_SECONDS)
    await worker.abandon()
    return drove


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait for whichever comes first."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
