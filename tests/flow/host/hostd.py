"""A host of local machines as a process of its own, to be killed: ``hostd.py HOME``.

It answers on HOME/run/host.sock. ``RUNTOOLS_CRASH_AT`` names the point at which it kills itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from runtools.platform.host.server import serving
from runtools.platform.host.service import HostService
from runtools.platform.kit import config, crash, log
from runtools.testing.local_driver import LocalDriver
from runtools.testing.local_template import LocalTemplates
from runtools.testing.local_warm import LocalWarm
from runtools.testing.null_network import NullNetwork


def local_host(settings, clock=None, **settings_of_warm):
    """A host service over local machines."""
    driver = LocalDriver()
    return HostService(
        settings,
        driver,
        NullNetwork(),
        LocalTemplates(settings.host_home / "templates"),
        LocalWarm(settings.host_home / "warm", driver),
        "abcdef",
        clock,
    )


async def main(home):
    settings = config.load({**os.environ, "RUNTOOLS_HOME": home})
    crash.arm(settings.crash_at)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    settings.run_folder.mkdir(exist_ok=True)
    host = local_host(settings)
    await host.start()
    async with serving(host, settings.host_socket):
        await ended.wait()
    await host.stop()


if __name__ == "__main__":
    log.configure("host")
    asyncio.run(main(str(Path(sys.argv[1]))))
