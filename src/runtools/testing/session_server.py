"""A small MCP server at an address that keeps a session for each who comes, and counts in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runtools.testing import small_server
from runtools.testing.threaded import threaded

_HEADER = "mcp-session-id"


@dataclass
class SessionServer:
    """What has become of it.

    Attributes:
        sessions: those that it knows, each with what was counted in it.
        begun, ended: how many there were, and how many took their leave.
        more: tools that are listed beside `small_server.TOOLS`, with their schemas.
    """

    url: str = ""
    sessions: dict[str, int] = field(default_factory=dict)
    begun: int = 0
    ended: int = 0
    more: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def take(self, request: Request) -> Response:
        """A request."""
        name = request.headers.get(_HEADER, "")
        if request.method == "GET":
            return Response(status_code=405)
        if request.method == "DELETE":
            self.ended += self.sessions.pop(name, None) is not None
            return Response(status_code=200)
        asked: dict[str, Any] = await request.json()
        if asked["method"] == "initialize":
            name = secrets.token_hex(8)
            self.sessions[name] = 0
            self.begun += 1
        elif name not in self.sessions:
            return Response(status_code=404)
        if "id" not in asked:
            return Response(status_code=202)
        return self._said(name, asked)

    def _said(self, name: str, asked: dict[str, Any]) -> Response:
        params = asked.get("params") or {}
        self.sessions[name] += params.get("name") == "count"
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            said["result"] = small_server.answer(asked["method"], params, self.sessions[name])
        except small_server.Refusal as refusal:
            said["error"] = {"code": -32601, "message": str(refusal)}
        if asked["method"] == "tools/list" and "nextCursor" not in said["result"]:
            said["result"]["tools"] += [
                {"name": tool, "inputSchema": schema} for tool, schema in self.more.items()
            ]
        return JSONResponse(said, headers={_HEADER: name})


@contextmanager
def session_server() -> Iterator[SessionServer]:
    """One that serves while the body runs."""
    made = SessionServer()
    routes = [Route("/mcp", made.take, methods=["GET", "POST", "DELETE"])]
    with threaded(Starlette(routes=routes)) as address:
        made.url = f"{address}/mcp"
        yield made
