"""The SSH gateway, put together: a listener of the gateway process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from runtools.errors import RunToolsError
from runtools.platform.boot import parts
from runtools.platform.core.ports.doorway import Address
from runtools.platform.gateway.reach import HostReach
from runtools.platform.gateway.ssh import keys
from runtools.platform.gateway.ssh.asking import ApiDoorway
from runtools.platform.gateway.ssh.house import house
from runtools.platform.gateway.ssh.server import serving
from runtools.platform.kit.clock import Backoff, Clock, SystemClock
from runtools.platform.kit.config import Settings

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def ssh(settings: Settings) -> AsyncIterator[None]:
    """Serve SSH."""
    clock = SystemClock()
    known = keys.load(settings.gateway_home)
    async with ApiDoorway(settings.own_url, parts.token(settings, "gateway")) as doorway:
        made = house(
            doorway,
            HostReach(settings.reach_socket),
            known,
            clock,
            per_source=settings.ssh_per_source,
            per_sandbox=settings.ssh_per_sandbox,
            agents=settings.ssh_agents == "allowed",
        )
        async with serving(made, settings.ssh_host, settings.ssh_port) as port:
            log.info("ssh on %s:%s", settings.ssh_host, port)
            telling = asyncio.create_task(_tell(doorway, settings, known.host_lines, clock))
            try:
                yield
            finally:
                telling.cancel()


async def _tell(
    doorway: ApiDoorway, settings: Settings, host_keys: list[str], clock: Clock
) -> None:
    """Tell the api what the gateway is known by, as soon as it answers."""
    host, port = settings.ssh_place
    address = Address(host=host, port=port, host_keys=host_keys)
    pause = Backoff(clock, first=0.2, most=5.0)
    while True:
        try:
            await doorway.announce(address)
        except RunToolsError as error:
            log.info("the api has not heard of the gateway yet: %s", error)
            await pause.wait()
        else:
            return
