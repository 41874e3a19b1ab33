"""A reader that does not read is let go, and with it what was open for its sake."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from runtools.platform.kit import connection
from runtools.platform.kit.http import Stream


async def test_who_takes_nothing_of_a_stream_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.2)
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 16)
                await asyncio.sleep(0)
        finally:
            ended.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Stream(endless(), media_type="text/plain")(scope, receive, send)

    config = uvicorn.Config(app, log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: connection.Protocol(config=config, server_state=state, app_state={}),
        "127.0.0.1",
        0,
    )
    async with server:
        with socket.create_connection(server.sockets[0].getsockname()) as deaf:
            deaf.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            async with asyncio.timeout(60):
                await ended.wait()
                await asyncio.gather(*state.tasks, return_exceptions=True)
        assert not state.connections
