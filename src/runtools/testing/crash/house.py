"""A home with a host process in it that can be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from runtools.errors import HostUnavailable
from runtools.platform.api.hosts.remote import RemoteHost
from runtools.testing import host_process
from runtools.testing.forks import Maker

START_SECONDS = 120.0
_LOOK_SECONDS = 0.01


def maker(kind: str) -> Maker:
    """Makes host processes: ``local`` or ``qemu``."""
    return Maker(host_process.__name__, kind, "--forks")


class House:
    """One home and its host process, which is there or not."""

    def __init__(self, home: Path, maker: Maker, settings: Mapping[str, str]) -> None:
        self.home = home
        self.host = RemoteHost(home / "run" / "host.sock")
        self.log = home / "host.log"
        self._maker = maker
        self._settings = settings
        self._pid: int | None = None

    async def start(self, crash_at: str = "") -> None:
        """Start it and wait until it answers."""
        await self.begin(crash_at)
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():
                await asyncio.sleep(_LOOK_SECONDS)

    async def begin(self, crash_at: str = "") -> None:
        """Start it."""
        environment = {
            **self._settings,
            "RUNTOOLS_HOME": str(self.home),
            "RUNTOOLS_CRASH_AT": crash_at,
        }
        self._pid = await self._maker.start(environment, self.log)

    async def kill(self) -> None:
        """Kill it at this moment, if it is there."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            await self.ended()

    async def ended(self) -> int:
        """Wait until it has ended by itself; says how."""
        assert self._pid is not None
        pid, self._pid = self._pid, None
        async with asyncio.timeout(START_SECONDS):
            return await self._maker.wait(pid)

    async def close(self) -> None:
        """Kill it."""
        await self.kill()
        await self.host.aclose()

    async def _answers(self) -> bool:
        try:
            await self.host.view()
        except HostUnavailable:
            assert self._pid is not None
            stat = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2]
            assert stat.split()[0] != "Z", "\n".join(self.log.read_text().splitlines()[-40:])
            return False
        return True
