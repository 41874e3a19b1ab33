"""Reach without a host: the ports of its sandboxes are ports of this machine's loopback."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from runtools.errors import InvalidRequest, NotFound, PortClosed, RunToolsError
from runtools.guest import netinfo
from runtools.guest.protocol import PORT
from runtools.platform.core.ports.reach import Reach, Stream


@dataclass
class FakeReach(Reach):
    """Opens what is asked for, and remembers it.

    Attributes:
        sandboxes: the ids that there are, with what each fails with, if it does.
        ports: where a port of a sandbox really is, if not at the same number.
        opened: what was asked for, in order.
        wakes: whether each was to wake its sandbox.
    """

    sandboxes: dict[str, RunToolsError | None] = field(default_factory=dict)
    ports: dict[int, int] = field(default_factory=dict)
    opened: list[tuple[str, int]] = field(default_factory=list)
    wakes: list[bool] = field(default_factory=list)

    async def open(self, sandbox_id: str, port: int, *, wakes: bool = True) -> Stream:
        """See `Reach`."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport = await self.attach(sandbox_id, port, protocol, wakes=wakes)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def attach(
        self, sandbox_id: str, port: int, protocol: asyncio.Protocol, *, wakes: bool = True
    ) -> asyncio.Transport:
        """See `Reach`."""
        self.opened.append((sandbox_id, port))
        self.wakes.append(wakes)
        self._check(sandbox_id, port)
        loop = asyncio.get_running_loop()
        for address in ("127.0.0.1", "::1"):
            making = asyncio.ensure_future(
                loop.create_connection(lambda: protocol, address, self.ports.get(port, port))
            )
            try:
                transport, _ = await asyncio.shield(making)
            except OSError:
                continue
            except asyncio.CancelledError:
                # Broken off by itself, uvloop would have begun with the protocol and never end it.
                making.add_done_callback(_abort)
                raise
            return transport
        raise PortClosed(f"nothing listens on port {port}", details={"ports": netinfo.listening()})

    def _check(self, sandbox_id: str, port: int) -> None:
        if not 1 <= port <= 65535 or port == PORT:
            raise InvalidRequest(f"port {port} cannot be reached")
        if sandbox_id not in self.sandboxes:
            raise NotFound(f"there is no sandbox {sandbox_id}")
        failure = self.sandboxes[sandbox_id]
        if failure is not None:
            raise failure


def _abort(making: asyncio.Future[tuple[asyncio.Transport, asyncio.Protocol]]) -> None:
    """End a connection that nobody waits for any more."""
    if making.exception() is None:
        making.result()[0].abort()
