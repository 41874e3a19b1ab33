"""The host process: the only part with root. Names the concrete driver and network, and wires them."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtools.platform.boot import home, running, uids
from runtools.platform.host.drivers.qemu import groups
from runtools.platform.host.drivers.qemu.driver import QemuDriver
from runtools.platform.host.drivers.qemu.groups import Groups
from runtools.platform.host.drivers.qemu.probe import Prober
from runtools.platform.host.engine.engine import SANDBOX_UIDS
from runtools.platform.host.entrance import entrance
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.platform.host.net.rules import Limits
from runtools.platform.host.server import serving
from runtools.platform.host.service import HostService
from runtools.platform.host.templates.service import Templates
from runtools.platform.host.templates.warm import Warm
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.tracing import Tracing, from_settings

# So many users, at the end of the install's own, are given to machines that are being warmed.
WARM_UIDS = 16

log = logging.getLogger(__name__)


def driver(settings: Settings, install_id: str = "", users: Sequence[range] = ()) -> QemuDriver:
    """The driver of this machine; without an install id, one that is only asked what it can do."""
    prober = Prober(settings.host_home, settings.accelerator, lambda: _a_kernel(settings))
    return QemuDriver(prober, Groups(install_id, groups.of_this_machine()), users)


def _a_kernel(settings: Settings) -> Path | None:
    """A template's kernel to try KVM with, once there is one."""
    return next(iter(sorted((settings.host_home / "templates").glob("*/kernel"))), None)


@dataclass(frozen=True, slots=True)
class Composed:
    """The host service of this machine, not started yet, and what goes down after it."""

    service: HostService
    network: NamespaceNetwork
    tracing: Tracing
    driver: QemuDriver

    async def shutdown(self) -> dict[str, str]:
        """Pause what runs, and take down what only a running platform needs; says what runs on, and why."""
        left = await self.service.shutdown()
        await self.network.stop()
        self.driver.close()
        await asyncio.to_thread(self.tracing.close)
        return left


def compose(settings: Settings) -> Composed:
    """Wire the parts.

    Raises:
        Conflict: another platform on this machine has the user ids of this one.
    """
    install_id, clock = home.install_id(settings), SystemClock()
    first_uid = uids.claim(settings, install_id)
    of_sandboxes = range(first_uid, first_uid + SANDBOX_UIDS)
    of_warm = range(first_uid + uids.SIZE - WARM_UIDS, first_uid + uids.SIZE)
    vmm = driver(settings, install_id, (of_sandboxes, of_warm))
    network = NamespaceNetwork(
        install_id,
        limits=Limits(
            settings.network_mbit, settings.network_packets, settings.network_connections
        ),
        relay_uid=first_uid + SANDBOX_UIDS,
        sandboxes=settings.max_sandboxes,
    )
    headroom_bytes = settings.disk_headroom_mb << 20
    warm = Warm(
        settings.host_home,
        vmm,
        network,
        clock,
        uids=of_warm,
        limit_bytes=settings.warm_mb << 20,
        keep_free=headroom_bytes,
    )
    templates = Templates(
        settings.host_home,
        clock,
        mirror=settings.mirror,
        warm=warm,
        kasmvnc=settings.kasmvnc,
        keep_free=headroom_bytes,
        limit_seconds=settings.build_minutes * 60 or None,
    )
    tracing = from_settings(settings, "host")
    service = HostService(settings, vmm, network, templates, warm, first_uid, clock, tracing)
    return Composed(service, network, tracing, vmm)


async def serve(settings: Settings, uid: int, gid: int) -> int:
    """Serve on the socket until SIGTERM, which pauses what runs."""
    with home.lock(settings.run_folder / "host.lock", "a host"):
        ending = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ending.set)
        host = compose(settings)
        if not await _started(host.service, ending):
            return 0
        service, tracing = host.service, host.tracing
        async with (
            serving(service, settings.host_socket, uid=uid, gid=gid, tracing=tracing),
            entrance(service.entering, settings.reach_socket, uid=uid, gid=gid),
        ):
            view = await host.service.view()
            log.info("host %s: %s by %s", view.id, view.isolation, view.accelerator)
            await ending.wait()
            log.info("pausing what runs")
            await host.shutdown()
    return 0


async def _started(service: HostService, ending: asyncio.Event) -> bool:
    """Start, unless the end is asked for before that: what was half-taken over the next start finds."""
    starting = asyncio.create_task(service.start())
    asked = asyncio.create_task(ending.wait())
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if starting.done():
        await starting
        return True
    starting.cancel()
    return False


async def pause_all(settings: Settings) -> int:
    """Adopt what a killed platform left running, pause it, and end.

    Prints what runs on, and why, as JSON; it ends with `LEFT` where something does.
    """
    with home.lock(settings.run_folder / "host.lock", "a host"):
        host = compose(settings)
        await host.service.start()
        left = await host.shutdown()
    for name in await asyncio.to_thread(running.machines, settings):
        left.setdefault(name, "its record cannot be read, or nothing ends it: the log says which")
    print(json.dumps(left))
    return running.LEFT if left else 0
