"""Listens for HTTP, with or without TLS, and has every connection visit the house."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from runtools.errors import Conflict, InvalidRequest
from runtools.platform.gateway.web.house import House
from runtools.platform.gateway.web.visit import Visit

_BACKLOG = 1024
_HANDSHAKE_SECONDS = 15.0


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


@contextlib.asynccontextmanager
async def listening(
    house: House, host: str, port: int, secured: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve while the body runs; gives the port.

    Raises:
        Conflict: somebody else listens there.
    """
    loop = asyncio.get_running_loop()
    patience = None if secured is None else _HANDSHAKE_SECONDS
    try:
        server = await loop.create_server(
            lambda: Visit(house),
            host,
            port,
            backlog=_BACKLOG,
            ssl=secured,
            ssl_handshake_timeout=patience,
        )
    except OSError as exc:
        raise Conflict(
            f"the gateway cannot listen on {host}:{port}: {exc.strerror}",
            hint="the settings gateway_host and gateway_port choose another place",
        ) from exc
    looking = asyncio.create_task(house.look_on())
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        looking.cancel()
        server.close()
        await house.close()
