"""The server on stdin and stdout: what a client on the same machine starts as a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp.server.stdio import stdio_server

from runtools.mcp.server import Context, make
from runtools.sdk.client import AsyncRunTools


async def serve(rt: AsyncRunTools, sandbox: str | None) -> None:
    """Serve until stdin ends."""

    @asynccontextmanager
    async def connect(_: Context) -> AsyncIterator[AsyncRunTools]:
        yield rt

    server = make(connect, sandbox)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
