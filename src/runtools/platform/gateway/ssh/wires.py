"""The two sockets of a visit, each between the operating system and an SSH connection.

What one of them does not take is not read from the other, so that little lies here in between. Who asks for
answers and takes none is not read either, once that much of them waits. Where both exchange keys, both are
read: neither exchange could end otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from runtools.platform.gateway.rousing import Rousing, Waken

HIGH = 1024 * 1024  # bytes that may wait to be sent before the partner is held up
MOST = 4 * HIGH  # more than that can only be answers to the other side itself
KEEPALIVE_SECONDS = 30
EXCHANGE = "keys are exchanged"
_FULL = "it takes nothing at present"
_SLEEPS = "it is being woken"
_FAREWELL_SECONDS = 2.0
# Read at once: while it is taken apart all others wait, and larger ones are copied over and over.
PIECE = 64 * 1024


class Wire(asyncio.Transport, asyncio.Protocol):
    """The protocol of a socket, and the transport of an SSH connection.

    Attributes:
        connection: the SSH connection; None: what comes is dropped.
        blocks: why what is for this one's other side has to wait.
        partner: who is not read as long as there is such a reason.
        over: set once the socket is gone.
    """

    def __init__(self, connection: Any) -> None:
        asyncio.Transport.__init__(self)
        self.connection = connection
        self.partner: Wire | None = None
        self.blocks: set[str] = set()
        self.over = asyncio.Event()
        self._socket: asyncio.Transport | None = None
        self._brims = self._is_held = False
        self._rest = b""  # came, and has not had its turn yet
        self._turn: asyncio.Handle | None = None

    # --- the socket's protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._socket = socket = cast("asyncio.Transport", transport)
        socket.set_write_buffer_limits(high=HIGH)
        if self.connection is not None:
            self.connection.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came; of more than a piece the rest waits, and more is not read before it."""
        if self.connection is not None and len(data) > PIECE:
            self._rest, data = data[PIECE:], data[:PIECE]
            self.look()
        if self.connection is not None:
            self.connection.data_received(data)
        if self.waiting() > MOST:
            self._brims = True
            self.look()

    def _go_on(self) -> None:
        """The rest has its turn, unless it has to wait as if it had not been read."""
        self._turn = None
        if not self._there.is_closing() and not self._brims and not self._is_held:
            rest, self._rest = self._rest, b""
            self.data_received(rest)
            self.look()

    def eof_received(self) -> bool:
        """The other side will send no more: SSH knows no half of a connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.over.set()
        self.blocks.clear()
        self._tell()
        if self.connection is not None:
            self.connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The other side does not take what is sent."""
        self.block(_FULL)

    def resume_writing(self) -> None:
        """It does again."""
        self._brims = False
        self.look()
        self.unblock(_FULL)

    # --- who is read ---

    def block(self, why: str) -> None:
        """What is for its other side has to wait: read nothing of that."""
        self.blocks.add(why)
        self._tell()
        self.look()

    def unblock(self, why: str) -> None:
        """That reason is gone."""
        self.blocks.discard(why)
        self._tell()
        self.look()

    def _tell(self) -> None:
        if self.partner is not None:
            self.partner.look()

    def look(self) -> None:
        """Read, or do not for now."""
        if self._socket is None or self.connection is None or self._socket.is_closing():
            return
        is_held = self.partner is not None and bool(
            self.partner.blocks - (self.blocks & {EXCHANGE})
        )
        if self._brims or is_held or self._rest:
            self._socket.pause_reading()
        else:
            self._socket.resume_reading()
        if is_held is not self._is_held:
            self._is_held = is_held
            self.held(is_held)
        if self._rest and self._turn is None and not self._brims and not is_held:
            self._turn = asyncio.get_running_loop().call_soon(self._go_on)

    def held(self, is_held: bool) -> None:
        """It is not read for its partner's sake, or is again."""

    # --- the connection's transport ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; what is for a socket that is gone is dropped here, for asyncio logs each piece of it."""
        if not self._there.is_closing():
            self._there.write(data)

    def close(self) -> None:
        """End it after what was written."""
        self._there.close()

    def abort(self) -> None:
        """End it so that what was said last arrives: what still comes is read and dropped for a while.

        A socket that is closed over what nobody has read throws away what it was to send.
        """
        self.connection = None
        if self._there.is_closing():
            return
        self._there.resume_reading()
        try:
            self._there.write_eof()
        except OSError:  # the other side is gone already
            self._there.abort()
        else:
            asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, self._there.abort)

    def drop(self) -> None:
        """End it without a word."""
        self.connection = None
        self._there.abort()

    def is_closing(self) -> bool:
        """Whether it is over."""
        return self._there.is_closing()

    def waiting(self) -> int:
        """How many bytes wait to be sent."""
        return self._there.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the socket; ``wire`` is this."""
        return self if name == "wire" else self._there.get_extra_info(name, default)

    @property
    def _there(self) -> asyncio.Transport:
        assert self._socket is not None  # noqa: S101 - nothing is asked before the socket is there
        return self._socket


class ClientWire(Wire):
    """A client's.

    Args:
        make: makes the SSH connection, once the socket is there; None: there is none, and the wire was
            ended.
        gone: is called when the socket is gone.

    Attributes:
        source: the address that it comes from. A socket that is gone does not know it any more.
    """

    def __init__(self, make: Callable[[ClientWire], Any | None], gone: Callable[[], None]) -> None:
        super().__init__(None)
        self._make = make
        self._gone = gone
        self._written = 0
        self.source = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        peer = transport.get_extra_info("peername")
        self.source = str(peer[0]) if peer else "?"
        super().connection_made(transport)
        self.connection = self._make(self)
        if self.connection is not None:
            self.connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it, and count it."""
        self._written += len(data)
        super().write(data)

    def taken(self) -> int:
        """How many bytes wait no more."""
        return self._written - self.waiting()

    def held(self, is_held: bool) -> None:
        """Who is not read is not asked whether it is there: its answer would not be heard."""
        self.connection.set_keepalive(0 if is_held else KEEPALIVE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        self._gone()


class SandboxWire(Wire):
    """A sandbox's, for a client.

    Args:
        every: those that are there; it is one of them from its beginning to its end.
    """

    def __init__(self, connection: Any, client: ClientWire, every: set[SandboxWire]) -> None:
        super().__init__(connection)
        self._client = client
        self._every = every
        self._rousing: Rousing | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is there."""
        self._every.add(self)
        super().connection_made(transport)
        self.partner, self._client.partner = self._client, self
        self.look()
        self._client.look()

    def limit(self, waken: Waken, fail: Callable[[str], None]) -> None:
        """What it is told after a silence has it woken so from now on."""
        if self._rousing is None:
            self._rousing = Rousing(waken, self._awake, fail)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._rousing is not None:
            self._rousing.heard()
        super().data_received(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it; where much of it waits for the sandbox to wake, the client is read no further.

        Until then it is, for it may ask whether anybody is there.
        """
        if self._rousing is None or not self._rousing.holds(bytes(data)):
            super().write(data)
        elif self._rousing.size > HIGH:
            self.block(_SLEEPS)

    def _awake(self, held: bytes) -> None:
        super().write(held)
        self.unblock(_SLEEPS)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._every.discard(self)
        if self._rousing is not None:
            self._rousing.cancel()
        super().connection_lost(exc)
