"""The only module that reads the wall clock; logic that depends on time is handed a `Clock`."""

from __future__ import annotations

import asyncio
import time
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
