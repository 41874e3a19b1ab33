"""The server over HTTP, at ``/mcp`` of the API: streamable HTTP, no state between requests.

Whoever calls shows an API key, as for the API, and each tool calls the API with that key: what the key may
not do, no tool does, and what a tool does stands in the audit log like any other call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from runtools.errors import RunToolsError, Unauthenticated
from runtools.mcp.server import Context, make
from runtools.sdk.client import AsyncRunTools


class Mcp:
    """An ASGI application; it serves inside `running`.

    Args:
        api_url: where the API is.
        called_for: the headers that tell the API from which address a call comes.
    """

    def __init__(self, api_url: str, called_for: Callable[[str], Mapping[str, str]]) -> None:
        self._api_url = api_url
        self._called_for = called_for
        self._sessions = StreamableHTTPSessionManager(make(self._connect), stateless=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What goes on beside requests, until the block ends."""
        async with self._sessions.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of somebody whose key is good."""
        try:
            async with self._client(HTTPConnection(scope)) as rt:
                await rt.me()
        except RunToolsError as error:
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            refusal = JSONResponse({"error": error.to_wire()}, error.status, headers)
            await refusal(scope, receive, send)
            return
        await self._sessions.handle_request(scope, receive, send)

    @asynccontextmanager
    async def _connect(self, context: Context) -> AsyncIterator[AsyncRunTools]:
        request: Any = context.request
        async with self._client(request) as rt:
            yield rt

    def _client(self, request: HTTPConnection) -> AsyncRunTools:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = request.headers.get("x-api-key", "")
        if not key.strip():
            raise Unauthenticated(
                "no API key was sent", hint="send it as `Authorization: Bearer rt_live_…`"
            )
        peer = request.client.host if request.client else "-"
        headers = dict(self._called_for(peer))
        # The API knows which peers are proxies that it believes.
        if way := ",".join(request.headers.getlist("x-forwarded-for")):
            headers["x-forwarded-for"] = way
        return AsyncRunTools(key.strip(), self._api_url, headers=headers)
