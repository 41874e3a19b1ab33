"""The only module that reads the wall clock; logic that depends on time is handed a `Clock`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What time it is, and waiting."""

    def now(self) -> datetime:
        """The wall-clock time, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The wall-clock time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@asynccontextmanager
async def within(clock: Clock, seconds: float) -> AsyncIterator[None]:
    """What `asyncio.timeout` does, by a clock.

    Raises:
        TimeoutError: the block went on for longer; what it waited for was cancelled.
    """

    async def strike() -> None:
        await clock.sleep(seconds)
        bound.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as bound:
        striking = asyncio.create_task(strike())
        try:
            yield
        finally:
            striking.cancel()


class Backoff:
    """Waits between attempts, each twice as long as the one before, up to ``most`` seconds."""

    def __init__(self, clock: Clock, *, first: float = 0.1, most: float = 30.0) -> None:
        self._clock = clock
        self._next = first
        self._most = most

    async def wait(self) -> None:
        """Wait before the next attempt."""
        pause, self._next = self._next, min(self._next * 2, self._most)
        await self._clock.sleep(pause)
