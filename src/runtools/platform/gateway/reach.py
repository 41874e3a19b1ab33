"""The reach port over the host's Unix socket: a head, its answer, then the stream's own bytes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, cast

from runtools.errors import HostUnavailable, RunToolsError
from runtools.platform.core.ports import reach_wire
from runtools.platform.core.ports.reach import Reach, Stream
from runtools.platform.core.ports.reach_wire import LENGTH, MAX_ANSWER

_LIMIT: Final = 256 << 10  # of a stream's reader: it holds at most twice as much


class HostReach(Reach):
    """Streams into the sandboxes of one host.

    Args:
        path: the host's socket for them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self, sandbox_id: str, port: int, *, wakes: bool = True) -> Stream:
        """See `Reach`."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_LIMIT, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport = await self.attach(sandbox_id, port, protocol, wakes=wakes)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def attach(
        self, sandbox_id: str, port: int, protocol: asyncio.Protocol, *, wakes: bool = True
    ) -> asyncio.Transport:
        """See `Reach`."""
        ask = reach_wire.pack_ask(sandbox_id, port, wakes=wakes)
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        try:
            transport, _ = await loop.create_unix_connection(
                lambda: _Asking(protocol, answered), str(self.path)
            )
        except OSError as exc:
            raise HostUnavailable(
                f"the host part does not answer: {exc.strerror}", hint="runtools status shows it"
            ) from exc
        try:
            transport.write(ask)
            await answered
        except BaseException:
            transport.abort()
            raise
        return transport


class _Asking(asyncio.Protocol):
    """Waits for the answer, then gives way to the stream's own protocol."""

    def __init__(self, protocol: asyncio.Protocol, answered: asyncio.Future[None]) -> None:
        self._protocol = protocol
        self._answered = answered
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if len(self._came) < LENGTH.size:
            return
        (size,) = LENGTH.unpack_from(self._came)
        if size > MAX_ANSWER:
            self._fail(HostUnavailable("the host part gives an answer that is none"))
        elif len(self._came) >= LENGTH.size + size:
            self._end(self._came[LENGTH.size :][:size], self._came[LENGTH.size + size :])

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(HostUnavailable("the host part went away before it answered"))

    def _end(self, answer: bytes, rest: bytes) -> None:
        try:
            reach_wire.check_answer(answer)
        except RunToolsError as exc:
            self._fail(exc)
            return
        if self._answered.done():  # nobody waits for it any more
            return
        self._transport.set_protocol(self._protocol)
        self._protocol.connection_made(self._transport)
        self._answered.set_result(None)
        if rest:
            self._protocol.data_received(rest)

    def _fail(self, error: RunToolsError) -> None:
        if not self._answered.done():
            self._answered.set_exception(error)
