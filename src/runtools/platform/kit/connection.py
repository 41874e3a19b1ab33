"""HTTP connections as a server keeps them: who takes nothing of an answer for long is let go.

What is sent to a reader that does not read waits in the sockets' buffers, and then whoever sends waits. A
stream that waits so looks at nothing any more, not even at whether its caller still may read it.
"""

from __future__ import annotations

import socket
from asyncio.transports import BaseTransport, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# A reader may well do something else for a while, such as show a page of it to somebody.
SILENT_SECONDS = 300.0


class Protocol(HttpToolsProtocol):
    """uvicorn's, for connections whose other side may stop reading."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Bound how long the kernel keeps what the other side does not take."""
        super().connection_made(transport)
        let_go(transport, SILENT_SECONDS)


def let_go(transport: BaseTransport, seconds: float) -> None:
    """Have the kernel end a TCP connection whose other side has taken nothing for so long."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))
