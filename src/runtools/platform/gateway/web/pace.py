"""How fast bytes must go: who takes nothing for long, or gives a body in drops, holds nothing for ever."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
import termios
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

    @property
    def has_all(self) -> bool:
        """Whether nothing waits for it, in the kernel neither."""
        return not self._transport.get_write_buffer_size() and not self._queued()

    def stalls(self, now: float, *, is_last: bool = False) -> bool:
        """Whether something waits for it, of which it has taken nothing for long.

        The kernel says that there is room only when a third of its queue is free, which takes a slow one
        minutes: what it has taken of that counts, too.

        Args:
            is_last: what waits in the kernel alone is waited for as well.
        """
        left = self._transport.get_write_buffer_size()
        queued = self._queued() if left or is_last else 0
        left += queued
        taken = self.written - left
        if not left or taken != self._taken:
            self._taken, self._since = taken, now
        return now - self._since > STALL_SECONDS

    def _queued(self) -> int:
        """Bytes that the kernel holds, of which the other end has not said that it has them."""
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return 0
        held = bytearray(4)
        with contextlib.suppress(OSError):  # not every kind of connection says
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, held)
        return int.from_bytes(held, sys.byteorder)


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
