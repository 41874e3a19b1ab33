"""WebSockets without product words: the server's protocol with its bounds, and closing with a reason.

A reader that does not read holds what the sockets' buffers hold and one message; then whoever sends waits.
When nothing was taken for `SILENT_SECONDS` the kernel ends the connection.
"""

from __future__ import annotations

import json
from asyncio.transports import BaseTransport
from typing import Any

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from runtools.errors import RunToolsError
from runtools.platform.kit.connection import let_go

MAX_MESSAGE_BYTES = 128 * 1024
SILENT_SECONDS = 30.0
LINKS = "/parts/"
"""Where parts of the platform connect: who does has been let in, and may send more than others."""
MAX_LINK_BYTES = 64 * 1024 * 1024
_LINK_PING_SECONDS = (2.0, 10.0)  # how often it is asked, and how long it may be silent
_MAX_REASON_BYTES = 120


class Protocol(WebSocketsSansIOProtocol):
    """uvicorn's, for connections whose other side may stop reading: those end, and are not kept."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Bound how long the kernel keeps what the other side does not take."""
        super().connection_made(transport)
        let_go(transport, SILENT_SECONDS)

    def handle_connect(self, event: Request) -> None:
        """Widen the bounds of a part of the platform, and notice sooner that it is gone.

        Nothing that it sends is read before it has been let in.
        """
        if event.path.startswith(LINKS):
            self.conn.max_message_size = MAX_LINK_BYTES
            self.ping_interval, self.ping_timeout = _LINK_PING_SECONDS
        super().handle_connect(event)

    async def send(self, message: Any) -> None:
        """Send a message; a refusal is an answer, which uvicorn would log as the want of one."""
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent


async def say(sock: WebSocket, **message: Any) -> None:
    """Send a message of control: JSON as text."""
    await sock.send_text(json.dumps(message, separators=(",", ":"), default=str))


async def fail(sock: WebSocket, error: RunToolsError) -> None:
    """Say what went wrong, and close with 4000 + its HTTP status."""
    await say(sock, type="error", error=error.to_wire())
    reason = error.message.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
    await sock.close(4000 + error.status, reason)
