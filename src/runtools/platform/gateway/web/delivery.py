"""What one visitor is given: answer after answer, so that a part of one is never taken for the whole.

Chunks tell where an answer ends that has no length. Who understands none is told by the connection: then
everything but the answer's own end is a reset, the death of this process too.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from runtools.platform.gateway.web.exchange import Exchange
from runtools.platform.gateway.web.framing import LAST_CHUNK, chunk
from runtools.platform.gateway.web.pace import Outflow

_RESET: Final = struct.pack("ii", 1, 0)
_END: Final = struct.pack("ii", 0, 0)


class Delivery:
    """Of one connection.

    Attributes:
        flow: how fast it takes what it is given.
    """

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self.flow = Outflow(transport, now)
        self._said = b""  # a head, not written yet: what comes of the body goes with it
        self._chunks = False

    def begin(self, said: bytes, exchange: Exchange) -> None:
        """The head of an answer, an interim one included; empty: nothing is said of that."""
        if not exchange.begun:
            self._transport.write(said)
            return
        self._said, self._chunks = said, exchange.chunks
        if exchange.is_endless:
            self._close_with(_RESET)

    def add(self, data: bytes) -> None:
        """Some of its body."""
        said, self._said = self._said, b""
        if self._chunks:
            data = chunk(data)
        self.flow.written += len(data)
        self._transport.write(said + data if said else data)

    def flush(self) -> None:
        """No more of it is there for now."""
        if self._said:
            said, self._said = self._said, b""
            self._transport.write(said)

    def end(self, exchange: Exchange) -> None:
        """It is whole."""
        self.flush()
        if self._chunks:
            self._chunks = False
            self.flow.written += len(LAST_CHUNK)
            self._transport.write(LAST_CHUNK)
        if exchange.is_endless:
            self._close_with(_END)

    def break_off(self) -> None:
        """A reset, for an end would make a part the whole."""
        self._close_with(_RESET)
        self._transport.abort()

    def _close_with(self, how: bytes) -> None:
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
