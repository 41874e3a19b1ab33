"""How fast bytes must go: who takes nothing for long, or gives a body in drops, holds nothing for ever."""

from __future__ import annotations

import asyncio
from typing import Final

STALL_SECONDS: Final = 60.0
BODY_SECONDS: Final = 60.0
BODY_LEAST: Final = 6_000  # bytes in so many seconds


class Outflow:
    """Whether a connection takes what it is sent.

    Attributes:
        written: bytes that it was given.
    """

    def __init__(self, transport: asyncio.WriteTransport, now: float) -> None:
        self._transport = transport
        self.written = 0
        self._taken = 0
        self._since = now

    def stalls(self, now: float) -> bool:
        """Whether something waits for it, of which it has taken nothing for long."""
        left = self._transport.get_write_buffer_size()
        taken = self.written - left
        if not left or taken != self._taken:
            self._taken, self._since = taken, now
        return now - self._since > STALL_SECONDS


class Inflow:
    """Whether a body comes.

    Attributes:
        came: bytes of it in this period.
    """

    def __init__(self, now: float) -> None:
        self.came = 0
        self._since = now

    def drips(self, now: float, *, excused: bool) -> bool:
        """Whether a period has ended in which too little came, though it was waited for."""
        if now - self._since < BODY_SECONDS:
            return False
        is_little = self.came < BODY_LEAST
        self.came, self._since = 0, now
        return is_little and not excused
