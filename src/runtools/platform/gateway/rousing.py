"""What is said to a sandbox after a silence, in which it may have gone to sleep, is held until it is awake.

What was said just before and has had no answer may have found it being paused: then it is woken, too.
All that is for those whose orgs have limits on what runs: the api wakes them, and counts it (decisions 0044
and 0051).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from runtools.errors import DeadlineExceeded, RunToolsError, Unavailable, WaitsForRoom
from runtools.platform.kit.clock import Backoff, SystemClock

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 120.0
_LONGEST_PAUSE: Final = 2.0
_FAILED: Final = "the platform failed to wake the sandbox; its log says why"

Waken = Callable[[], Awaitable[None]]


class Rousing:
    """Stands before what goes to a sandbox on one connection.

    Args:
        waken: has the sandbox awake; None: what is said wakes it.
        go_on: is given what was held, once it is awake.
        fail: is told why it sleeps on.

    Attributes:
        waken: see above; it may be set later, and then what comes next asks.
        size: of what is held, in bytes.
    """

    def __init__(
        self, waken: Waken | None, go_on: Callable[[bytes], None], fail: Callable[[str], None]
    ) -> None:
        self.waken = waken
        self._go_on = go_on
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._moved = self._time()  # something, in either direction
        self._is_heard = True  # something has come since it was told something
        self._doubt: asyncio.TimerHandle | None = None
        self._held: list[bytes] = []
        self.size = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it is being woken: what is held goes on later, or never."""
        return self._task is not None

    def heard(self) -> None:
        """It said something."""
        self._moved = self._time()
        self._is_heard = True

    def holds(self, data: bytes) -> bool:
        """Whether what is to be said is held for now."""
        before, self._moved = self._moved, self._time()
        if self.waken is None:
            return False
        if self._task is None and self._moved - before > QUIET_SECONDS:
            self._task = asyncio.create_task(self._rouse(self.waken))
        if self._task is None:
            self._is_heard = False
            if self._doubt is None:
                self._doubt = self._loop.call_later(QUIET_SECONDS, self._doubts)
            return False
        self._held.append(data)
        self.size += len(data)
        return True

    def cancel(self) -> None:
        """There is nobody to be woken for any more."""
        if self._doubt is not None:
            self._doubt.cancel()
        if self._task is not None:
            self._task.cancel()

    def _doubts(self) -> None:
        """Nothing may have come of what it was told last because it sleeps by now: have it awake, once."""
        self._doubt = None
        left = self._moved + QUIET_SECONDS - self._time()
        if self._is_heard or self._task is not None or self.waken is None:
            return
        if left > 0:
            self._doubt = self._loop.call_later(left, self._doubts)
        else:
            self._task = asyncio.create_task(self._rouse(self.waken))

    async def _rouse(self, waken: Waken) -> None:
        try:
            await _answered(waken)
        except RunToolsError as exc:
            log.info("a connection that stayed open ends: %s", exc)
            self._fail(str(exc))
            return
        except Exception:
            # The edge of a task that nobody waits for: the visitor must not wait for ever.
            log.exception("a connection that stayed open ends")
            self._fail(_FAILED)
            return
        held = b"".join(self._held)
        self._held, self.size, self._task = [], 0, None
        self._moved, self._is_heard = self._time(), True
        self._go_on(held)


async def _answered(waken: Waken) -> None:
    """Have it woken by an api that may be away for a while: nobody is sent away for that.

    How long it is away counts from its first failure: one that is heard may last longer than that.

    Raises:
        RunToolsError: it may not be woken, or the api stays away.
    """
    backoff, time = Backoff(SystemClock(), most=_LONGEST_PAUSE), asyncio.get_running_loop().time
    last, is_told = None, False
    while True:
        try:
            return await waken()
        except WaitsForRoom:
            last = None  # it is heard
        except DeadlineExceeded as exc:
            last = None
            if not is_told:  # it may go on for ever
                log.warning("what was said on a connection that stayed open waits: %s", exc)
            is_told = True
        except Unavailable:
            last = last or time() + _AWAY_SECONDS
            if time() > last:
                raise
        await backoff.wait()
