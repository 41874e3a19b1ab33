"""The server over HTTP, at ``/mcp`` of the API: streamable HTTP, no state between requests.

Whoever calls shows an API key, as for the API, and each tool calls the API with that key: what the key may
not do, no tool does, and what a tool does stands in the audit log like any other call.

A call is cancelled by whoever hangs up. Clients of the protocol's versions before 2026-07-28 do not: they
send a note, by a request of its own, that names the call by a number of theirs. So each of them is given a
name with the answer to its first word, which it says from then on, and by which its note finds its call.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import mcp.types as protocol
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from runtools.errors import RunToolsError, Unauthenticated
from runtools.mcp.server import Context, make
from runtools.sdk.client import AsyncRunTools

_NAME, _VERSION = "mcp-session-id", "mcp-protocol-version"
_CANCELLED = "notifications/cancelled"


class Mcp:
    """An ASGI application; it serves inside `running`.

    Args:
        api_url: where the API is.
        called_for: the headers that tell the API from which address a call comes.
    """

    def __init__(self, api_url: str, called_for: Callable[[str], Mapping[str, str]]) -> None:
        self._api_url = api_url
        self._called_for = called_for
        self._under_way: dict[tuple[str, str, str], asyncio.Task[Any]] = {}
        server = make(self._connect)
        server.add_notification_handler(
            _CANCELLED, protocol.CancelledNotificationParams, self._cancel
        )
        self._sessions = StreamableHTTPSessionManager(server, stateless=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What goes on beside requests, until the block ends."""
        async with self._sessions.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of somebody whose key is good."""
        request = HTTPConnection(scope)
        try:
            async with self._client(request) as rt:
                await rt.me()
        except RunToolsError as error:
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            refusal = JSONResponse({"error": error.to_wire()}, error.status, headers)
            await refusal(scope, receive, send)
            return
        if _is_older(request):
            if scope["method"] == "GET":
                # There is nothing that we would say by ourselves.
                await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
                return
            if _NAME not in request.headers:
                send = _naming(send)
        await self._sessions.handle_request(scope, receive, send)

    @asynccontextmanager
    async def _connect(self, context: Context) -> AsyncIterator[AsyncRunTools]:
        request: Any = context.request
        async with self._client(request) as rt:
            with self._cancellable(request, context.request_id):
                yield rt

    @contextmanager
    def _cancellable(self, request: HTTPConnection, call: object) -> Iterator[None]:
        name = request.headers.get(_NAME)
        if name is None or not _is_older(request):
            yield
            return
        place = (_key(request), name, str(call))
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - each call is made in one of its own
        self._under_way[place] = task
        try:
            yield
        finally:
            if self._under_way.get(place) is task:
                del self._under_way[place]

    async def _cancel(self, context: Context, note: protocol.CancelledNotificationParams) -> None:
        """A note of an older client: end its call, if that is under way here."""
        request: Any = context.request
        place = (_key(request), request.headers.get(_NAME, ""), str(note.request_id))
        if (task := self._under_way.get(place)) is not None:
            task.cancel()

    @asynccontextmanager
    async def _client(self, request: HTTPConnection) -> AsyncIterator[AsyncRunTools]:
        key = _key(request)
        if not key:
            raise Unauthenticated(
                "no API key was sent", hint="send it as `Authorization: Bearer rt_live_…`"
            )
        peer = request.client.host if request.client else "-"
        headers = dict(self._called_for(peer))
        # The API knows which peers are proxies that it believes.
        if way := ",".join(request.headers.getlist("x-forwarded-for")):
            headers["x-forwarded-for"] = way
        async with AsyncRunTools(key, self._api_url, headers=headers) as rt:
            yield rt


def _key(request: HTTPConnection) -> str:
    """The key that was sent; empty: none was."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = request.headers.get("x-api-key", "")
    return key.strip()


def _is_older(request: HTTPConnection) -> bool:
    """Whether it is of a version of the protocol in which a call is cancelled by a note."""
    version = request.headers.get(_VERSION)
    return version is None or version in HANDSHAKE_PROTOCOL_VERSIONS


def _naming(send: Send) -> Send:
    """Give whoever is answered a name of its own."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[_NAME] = secrets.token_hex(16)
        await send(message)

    return named
