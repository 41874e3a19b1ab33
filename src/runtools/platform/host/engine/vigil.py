"""The wait for the end of a sandbox's VMM, which brings the sandbox to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from runtools.errors import HostUnavailable, SandboxStopped
from runtools.platform.core.ports.driver import Exit
from runtools.platform.host.engine.journal import Life
from runtools.platform.kit.clock import Backoff

if TYPE_CHECKING:
    from runtools.platform.host.engine.actor import Actor

log = logging.getLogger(__name__)

Death = Callable[["Actor", int, Exit], Coroutine[Any, Any, None]]
"""The act that follows when the VMM of the n-th machine has ended by itself."""


class Vigil:
    """Over the present machine of one sandbox."""

    def __init__(self, box: Actor, died: Death) -> None:
        self._box = box
        self._died = died
        self._waiting: asyncio.Task[None] | None = None

    @property
    def is_kept(self) -> bool:
        """Whether an end would be seen."""
        return self._waiting is not None

    def begin(self) -> None:
        """Wait for the end of the present machine's VMM."""
        self.end()
        life = self._box.record.life
        assert life is not None  # noqa: S101 - acts check the state
        self._waiting = asyncio.create_task(self._wait(life))

    def end(self) -> None:
        """Wait no more: the end that comes is one of ours."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def _wait(self, life: Life) -> None:
        backoff = Backoff(self._box.engine.clock)
        while True:
            try:
                end = await self._box.engine.driver.watch(self._box.machine(life))
            except Exception:
                # The edge of a loop: nobody else would see its end.
                log.exception("%s: its machine cannot be watched yet", self._box.id)
            else:
                self._waiting = None
                self._box.engine.later(self._see_off(life, end), f"the end of {self._box.id}")
                return
            await backoff.wait()

    async def _see_off(self, life: Life, end: Exit) -> None:
        """Have an end dealt with; what fails of that is done again until it holds.

        Nobody else would do it: the sandbox would stay `running` without a machine.
        """
        backoff = Backoff(self._box.engine.clock)
        while True:
            try:
                await self._box.perform(lambda: self._died(self._box, life.number, end))
            except (SandboxStopped, HostUnavailable):  # destroyed meanwhile, or the host goes down
                return
            except Exception:
                # The edge of a loop that must not end before the sandbox has.
                log.exception("%s: its end could not be journaled", self._box.id)
            else:
                return
            await backoff.wait()
