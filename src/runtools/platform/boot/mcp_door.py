"""``/mcp`` beside the API: the server of the Model Context Protocol, loaded when first asked for.

Its libraries take longer to load than the rest of the api, and most platforms never need them.

Its tools call the api over the loopback, for somebody who is connected from elsewhere. Each such call says
for whom, with a secret that each process makes anew and shows nobody: so the audit log and the limits on
tries see the peer, and nobody else can name one.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from runtools.platform.kit import crypto, http

if TYPE_CHECKING:
    from runtools.mcp.http import Mcp

PATH = "/mcp"
_FOR = "x-runtools-called-for"


class McpDoor:
    """Wraps the api; everything but `PATH` goes through.

    Args:
        app: the api.
        api_url: where it listens, for the server's own calls.
    """

    def __init__(self, app: ASGIApp, api_url: str) -> None:
        self._app = app
        self._api_url = api_url
        self._secret = secrets.token_hex(32)
        self._opening: asyncio.Task[Mcp] | None = None
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI server."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await self._close()
            return
        scope = self._from_peer(scope)
        if scope["type"] != "http" or scope["path"].rstrip("/") != PATH:
            await self._app(scope, receive, send)
            return
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        server = await asyncio.shield(self._opening)
        await server(scope, receive, send)

    def _from_peer(self, scope: Scope) -> Scope:
        """A call of our own server comes from whom it is made for. Nobody else's header goes further."""
        given = http.header(scope, _FOR.encode())
        if given is None:
            return scope
        secret, _, peer = given.decode("latin-1").partition(" ")
        kept = [one for one in scope["headers"] if one[0] != _FOR.encode()]
        client = (peer, 0) if crypto.same(secret, self._secret) else scope.get("client")
        return {**scope, "headers": kept, "client": client}

    def _called_for(self, peer: str) -> dict[str, str]:
        return {_FOR: f"{self._secret} {peer}"}

    async def _open(self) -> Mcp:
        module = await asyncio.to_thread(importlib.import_module, "runtools.mcp.http")
        server: Mcp = module.Mcp(self._api_url, self._called_for)
        ready = asyncio.Event()
        self._serving = asyncio.create_task(_serve(server, ready))
        await ready.wait()
        return server

    async def _close(self) -> None:
        for task in (self._opening, self._serving):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])


async def _serve(server: Mcp, ready: asyncio.Event) -> None:
    """In a task of its own, which enters and leaves the server's task group."""
    async with server.running():
        ready.set()
        await asyncio.Event().wait()
