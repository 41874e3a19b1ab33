"""The worker process: drives runs of agents for the api. No root, no database, and no key of its own."""

from __future__ import annotations

import asyncio
import secrets
import signal

from runtools.platform.agents.models.build import Models
from runtools.platform.agents.models.http import client
from runtools.platform.agents.service import Post
from runtools.platform.agents.service import serve as work
from runtools.platform.boot import parts
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.outbound import Outbound, networks
from runtools.platform.kit.tracing import from_settings


async def serve(settings: Settings, name: str | None) -> int:
    """Work until SIGTERM. ``name``: of the one worker that takes another's place when it has died."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    outbound = Outbound(networks(settings.outbound_allow))
    models = Models(lambda: client(outbound))
    tracing = from_settings(settings, "worker")
    post = Post(
        url=settings.own_url,
        token=parts.token(settings, "worker"),
        id=name or f"worker-{secrets.token_hex(8)}",
        slots=settings.worker_slots,
        build=models.build,
        outbound=outbound,
        clock=SystemClock(),
        tracing=tracing,
    )
    try:
        await work(post, ending)
    finally:
        await models.close()
        outbound.close()
        await asyncio.to_thread(tracing.close)
    return 0
