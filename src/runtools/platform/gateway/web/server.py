"""Listens for HTTP, with or without TLS, and has every connection visit the house.

Connections are counted from the first moment on, before anything is known of them but their address.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Final

from runtools.errors import Conflict
from runtools.platform.gateway.web.admission import Wish
from runtools.platform.gateway.web.certificate import Certificate
from runtools.platform.gateway.web.house import House
from runtools.platform.gateway.web.visit import Visit

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 15.0
_CLOSE_SECONDS: Final = 3600.0  # the visit's own looks end it before, where nothing of it is taken
_BACKLOG: Final = 1024
_AGAIN_SECONDS: Final = 1.0
# Connections have them from the socket that they came by.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class Arrival(asyncio.Protocol):
    """A connection that is not encrypted yet: it is counted, and has so long for its handshake."""

    wish: Wish | None = None
    is_idle = True

    def __init__(self, house: House, context: ssl.SSLContext, sock: socket.socket) -> None:
        self.source = str(sock.getpeername()[0])
        self._house = house
        self._task: asyncio.Task[None] | None = None
        if house.enter(self):
            self._task = asyncio.create_task(self._secure(sock, context))
            self._task.add_done_callback(lambda _: house.leave(self))
        else:
            sock.close()  # a page could not be read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is encrypted now: a visit like any other."""
        self._house.leave(self)
        visit = Visit(self._house)
        transport.set_protocol(visit)
        visit.connection_made(transport)

    def look(self, now: float) -> None:
        """The handshake has a bound of its own."""

    def limit(self) -> None:
        """It visits nobody yet."""

    def abort(self) -> None:
        """Break off."""
        if self._task is not None:
            self._task.cancel()

    async def _secure(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: self,
                sock,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except OSError as exc:  # of TLS, too
            log.debug("no handshake with %s: %s", self.source, exc)


async def _take_in(house: House, secured: Certificate, listener: socket.socket) -> None:
    """Have whoever comes shake hands, for ever; the loop itself would count nobody before that."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock, _ = await loop.sock_accept(listener)
        except OSError as exc:  # no more files, say
            log.warning("cannot take a connection: %s", exc)
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        try:
            Arrival(house, secured.context(), sock)
        except OSError:  # it is gone already
            sock.close()


@contextlib.asynccontextmanager
async def listening(
    house: House, host: str, port: int, secured: Certificate | None = None
) -> AsyncIterator[int]:
    """Serve while the body runs; gives the port.

    Raises:
        Conflict: somebody else listens there.
    """
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: Visit(house), host, port, backlog=_BACKLOG, start_serving=secured is None
        )
    except OSError as exc:
        raise Conflict(
            f"the gateway cannot listen on {host}:{port}: {exc.strerror}",
            hint="the settings gateway_host and gateway_port choose another place",
        ) from exc
    for sock in server.sockets:
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
    working = [asyncio.create_task(house.look_on())]
    number = int(server.sockets[0].getsockname()[1])
    with contextlib.ExitStack() as stack:
        if secured is not None:
            for sock in server.sockets:
                listener = stack.enter_context(sock.dup())
                listener.listen(_BACKLOG)
                working.append(asyncio.create_task(_take_in(house, secured, listener)))
        try:
            yield number
        finally:
            for task in working:
                task.cancel()
            server.close()
            await house.close()
