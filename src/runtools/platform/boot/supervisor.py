"""Keeps the platform's processes alive: a dead one is started again, later and later if it keeps dying.

The supervisor listens to nothing but signals and its children. Virtual machines are no children of
it or of theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtools.platform.kit.clock import Clock
from runtools.platform.kit.process import start_child

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_HEALTHY_AFTER = 30.0
# So often, in some seconds, a part has died that will not live the next time either.
_DEATHS = 5


@dataclass(frozen=True, slots=True)
class Part:
    """A process to keep alive.

    Attributes:
        name: what the log calls it.
        command: what starts it.
        grace_seconds: how long it may take to end in order.
        untold: settings that are none of its business and kept from it.
    """

    name: str
    command: Sequence[str]
    grace_seconds: float
    untold: frozenset[str] = frozenset()


class Supervisor:
    """Runs parts until `stop` is called, then ends them in reverse order.

    Attributes:
        gave_up: what ended it by itself, where it is not patient.
    """

    def __init__(
        self, parts: Sequence[Part], env: Mapping[str, str], clock: Clock, *, patient: bool = True
    ) -> None:
        """``patient``: a part that dies again and again is started again and again, from the start on."""
        self.gave_up: str | None = None
        self._patient = patient
        self._parts = parts
        self._env = dict(env)
        self._clock = clock
        self._stopping = asyncio.Event()
        self._running: dict[str, asyncio.subprocess.Process] = {}

    def stop(self) -> None:
        """Begin the end; may be called more than once."""
        self._stopping.set()

    def is_ready(self) -> None:
        """All has come up once: from here on it is patient."""
        self._patient = True

    async def run(self) -> None:
        """Keep every part alive until `stop`."""
        keepers = [asyncio.create_task(self._keep(part)) for part in self._parts]
        await self._stopping.wait()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for part in reversed(self._parts):
            await self._end(part)

    async def _keep(self, part: Part) -> None:
        pause, times = _FIRST_PAUSE, 0
        while True:
            began = self._clock.monotonic()
            told = {name: value for name, value in self._env.items() if name not in part.untold}
            try:
                process = await start_child(part.command, env=told)
            except OSError as exc:  # no memory, or no process more: it may be over in a moment
                said = f"could not be started ({exc})"
            else:
                self._running[part.name] = process
                said = f"ended ({_how(await process.wait())})"
            if self._clock.monotonic() - began > _HEALTHY_AFTER:
                pause, times = _FIRST_PAUSE, 0
            times += 1
            if times >= _DEATHS and not self._patient:
                self.gave_up = f"{part.name} {said}, {times} times one after the other"
                log.error("%s: nothing has come up yet, so this is given up", self.gave_up)
                self.stop()
                return
            log.warning("%s %s; starting it again in %.1f s", part.name, said, pause)
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _end(self, part: Part) -> None:
        process = self._running.get(part.name)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(part.grace_seconds):
                await process.wait()
        except TimeoutError:
            log.error("%s did not end within %.0f s; killed", part.name, part.grace_seconds)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
