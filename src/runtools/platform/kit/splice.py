"""Two connections joined: what comes by one goes out by the other, as fast as that takes it.

A direction that ends is ended on the other side and leaves the other one open, but for TLS. A receiver
that is slow stops the sender, so that a splice holds no more than a few hundred kilobytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Collection
from typing import Final, cast

HIGH: Final = 256 << 10


class Unread(asyncio.Protocol):
    """Of a connection from which nothing is read before it has a use."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).pause_reading()


def is_gone(transport: asyncio.BaseTransport) -> bool:
    """Whether the other end has closed altogether; asyncio does not tell where its direction ended."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return bool(poll.poll(0))


def close(transport: asyncio.Transport) -> None:
    """Close, if nobody has yet: TLS that is closed a second time cannot even be broken off any more."""
    if not transport.is_closing():
        transport.close()


class Half(asyncio.Protocol):
    """What happens at one of the two connections.

    Attributes:
        is_slow: it does not take what it is sent.
    """

    def __init__(
        self, splice: Splice, source: asyncio.Transport, target: asyncio.Transport
    ) -> None:
        self._splice = splice
        self.source = source
        self.target = target
        self.ended = False
        self.is_slow = False

    def data_received(self, data: bytes) -> None:
        self._splice.carry(self, data)

    def eof_received(self) -> bool:
        self.ended = True
        self._splice.ended(self)
        return self.source.can_write_eof()

    def pause_writing(self) -> None:
        self.is_slow = True
        with contextlib.suppress(RuntimeError):  # the other one is closing
            self.target.pause_reading()

    def resume_writing(self) -> None:
        self.is_slow = False
        with contextlib.suppress(RuntimeError):
            self.target.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._splice.lost(self, exc)


class Splice:
    """Joins two open transports that are not read from; `begin` has them read.

    Args:
        front, back: the two.
        over: is called once, when both are gone.
        slow: those of the two that took too little before; asyncio tells it once, whom it belonged to then.
    """

    def __init__(
        self,
        front: asyncio.Transport,
        back: asyncio.Transport,
        over: Callable[[], None] = lambda: None,
        slow: Collection[asyncio.Transport] = (),
    ) -> None:
        self.inward = Half(self, front, back)
        self.outward = Half(self, back, front)
        self._over = over
        self._gone = 0
        for half in (self.inward, self.outward):
            half.is_slow = half.source in slow
            half.source.set_protocol(half)
            half.source.set_write_buffer_limits(high=HIGH)

    def begin(self) -> None:
        """Read on both sides from now on."""
        self.go_on(self.inward)
        self.go_on(self.outward)

    def go_on(self, half: Half) -> None:
        """Read one, if what comes is taken: who has been told to wait is told once when it need not."""
        other = self.outward if half is self.inward else self.inward
        if not other.is_slow:
            half.source.resume_reading()

    def carry(self, half: Half, data: bytes) -> None:
        """Pass on what came."""
        half.target.write(data)

    def ended(self, half: Half) -> None:
        """One direction is over; when both are, so is the splice."""
        if self.inward.ended and self.outward.ended:
            close(half.source)
            close(half.target)
        elif not half.target.can_write_eof():
            close(half.target)  # TLS ends both directions at once
        elif not half.target.is_closing():
            half.target.write_eof()

    def lost(self, half: Half, exc: Exception | None) -> None:
        """One connection is gone; the other goes after it."""
        if exc is not None:
            half.target.abort()
        else:
            close(half.target)
        self.left()

    def left(self) -> None:
        """Count one connection off."""
        self._gone += 1
        if self._gone == 2:
            self._over()

    def abort(self) -> None:
        """Break both off."""
        self.inward.source.abort()
        self.outward.source.abort()
