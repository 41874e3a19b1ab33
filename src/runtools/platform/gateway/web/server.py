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
from pathlib import Path
from typing import Final, cast

from runtools.errors import Conflict, InvalidRequest
from runtools.platform.gateway.web.admission import Wish
from runtools.platform.gateway.web.house import House
from runtools.platform.gateway.web.visit import Visit, source_of

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 15.0
_CLOSE_SECONDS: Final = 3600.0  # the visit's own looks end it before, where nothing of it is taken
_BACKLOG: Final = 1024
# Connections have them from the socket that they came by.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


def tls(certificate: str, key: str) -> ssl.SSLContext | None:
    """How connections are encrypted; None: they are not.

    Raises:
        InvalidRequest: certificate or key are none.
    """
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key or None)
    except (OSError, ssl.SSLError) as exc:
        raise InvalidRequest(
            f"setting gateway_tls_cert: {Path(certificate)} is no certificate with its key: {exc}",
            hint="a PEM file of the whole chain; gateway_tls_key names the key's, if it is another",
        ) from exc
    return context


class Arrival(asyncio.Protocol):
    """A connection that is not encrypted yet: it is counted, and has so long for its handshake."""

    wish: Wish | None = None
    is_idle = True

    def __init__(self, house: House, context: ssl.SSLContext) -> None:
        self._house = house
        self._context = context
        self._came = b""  # right behind the handshake
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.source = source_of(transport)
        if not self._house.enter(self):
            self._transport.abort()  # a page could not be read
            return
        self._transport.pause_reading()
        self._task = asyncio.create_task(self._secure())

    def data_received(self, data: bytes) -> None:
        self._came += data

    def eof_received(self) -> bool:
        self._ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.leave(self)

    def look(self, now: float) -> None:
        """The handshake has a bound of its own."""

    def limit(self) -> None:
        """It visits nobody yet."""

    def abort(self) -> None:
        """Break off."""
        self._transport.abort()

    async def _secure(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(
                self._transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except OSError as exc:  # of TLS, too
            log.debug("no handshake with %s: %s", self.source, exc)
            secured = None
        self._house.leave(self)
        if secured is None:
            self._transport.abort()
            return
        visit = Visit(self._house)
        secured.set_protocol(visit)
        visit.connection_made(secured)
        if self._came:
            visit.data_received(self._came)
        if self._ended:
            visit.eof_received()


@contextlib.asynccontextmanager
async def listening(
    house: House, host: str, port: int, secured: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve while the body runs; gives the port.

    Raises:
        Conflict: somebody else listens there.
    """
    loop = asyncio.get_running_loop()

    def arriving() -> asyncio.Protocol:
        return Visit(house) if secured is None else Arrival(house, secured)

    try:
        server = await loop.create_server(arriving, host, port, backlog=_BACKLOG)
    except OSError as exc:
        raise Conflict(
            f"the gateway cannot listen on {host}:{port}: {exc.strerror}",
            hint="the settings gateway_host and gateway_port choose another place",
        ) from exc
    for sock in server.sockets:
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
    looking = asyncio.create_task(house.look_on())
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        looking.cancel()
        server.close()
        await house.close()
