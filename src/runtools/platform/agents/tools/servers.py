"""Servers of tools that an agent brings along: MCP over streamable HTTP, at checked addresses.

Each listing and each call is a connection of its own: nothing is held open over a model's thinking, and
nothing has to be found again after a restart. What a server says is data for the model, and is bounded.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

from runtools.errors import RunToolsError
from runtools.platform.kit.outbound import Outbound, Refused
from runtools.sdk.shapes.definitions import McpServer
from runtools.workbench.cut import cut
from runtools.workbench.tool import Image, Result

if TYPE_CHECKING:
    from mcp.client.client import Client

MAX_TOOLS = 128
_MAX_NAME = 64  # what providers take
_LIST_SECONDS, _CALL_SECONDS = 15.0, 300.0
_MOST_CHARACTERS = 30_000
_MOST_DESCRIPTION = 2000
_MOST_IMAGE = 5 * 1024 * 1024

Secret = Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class ServerTool:
    """One tool of a server, as the model is told of it.

    Attributes:
        again: whether it may be called a second time without harm.
    """

    server: McpServer
    tool: str
    name: str
    description: str
    schema: dict[str, Any]
    again: bool


class Servers:
    """The servers of one run.

    Args:
        http: makes a client that connects to checked addresses, with headers of its own.
        secret: a secret of the run by its name.
    """

    def __init__(
        self,
        servers: list[McpServer],
        http: Callable[[dict[str, str]], httpx2.AsyncClient],
        outbound: Outbound,
        secret: Secret,
    ) -> None:
        self._servers = servers
        self._http = http
        self._outbound = outbound
        self._secret = secret
        self.tools: dict[str, ServerTool] = {}
        self.troubles: list[str] = []

    async def look(self) -> None:
        """Learn which tools there are. A server that cannot be asked is a trouble the model is told of."""
        found = await asyncio.gather(*(self._listed(server) for server in self._servers))
        for tools in found:
            for tool in tools[: MAX_TOOLS - len(self.tools)]:
                self.tools.setdefault(tool.name, tool)

    async def call(self, name: str, given: dict[str, Any], *, begun: bool) -> Result:
        """Call a tool; whatever goes wrong is a result."""
        tool = self.tools[name]
        if begun and not tool.again:
            return Result(
                "the platform was restarted while this call was made, and nobody knows whether it was "
                "carried out: look before you call it again",
                failed=True,
            )
        try:
            async with asyncio.timeout(_CALL_SECONDS), self._client(tool.server) as client:
                return _shown(await client.call_tool(tool.tool, given))
        except TimeoutError:
            return Result(
                f"{tool.server.name} did not answer within {_CALL_SECONDS:.0f} s", failed=True
            )
        except (Refused, RunToolsError) as error:
            return Result(str(error), failed=True)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's server makes of the client
            return Result(f"{tool.server.name}: {_why(error)}", failed=True)

    async def _listed(self, server: McpServer) -> list[ServerTool]:
        if server.url is None:
            self.troubles.append(
                f"{server.name} (it would run in the sandbox, which is not possible yet)"
            )
            return []
        try:
            async with asyncio.timeout(_LIST_SECONDS), self._client(server) as client:
                listed = (await client.list_tools()).tools
        except TimeoutError:
            self.troubles.append(f"{server.name} (it did not answer)")
        except Exception as error:  # noqa: BLE001 - whatever a stranger's server makes of the client
            self.troubles.append(f"{server.name} ({_why(error)})")
        else:
            wanted = [one for one in listed if server.tools is None or one.name in server.tools]
            return [_told(server, one) for one in wanted]
        return []

    @asynccontextmanager
    async def _client(self, server: McpServer) -> AsyncIterator[Client]:
        from mcp.client.client import Client  # noqa: PLC0415 - few agents bring servers
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

        assert server.url is not None  # noqa: S101 - others are not listed
        await self._outbound.check(server.url)
        headers = {}
        if server.secret is not None:
            headers["Authorization"] = f"Bearer {await self._secret(server.secret)}"
        async with self._http(headers) as http:
            transport = streamable_http_client(server.url, http_client=http)
            async with Client(transport) as client:
                yield client


def _told(server: McpServer, tool: Any) -> ServerTool:
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", f"{server.name}__{tool.name}")[:_MAX_NAME]
    hints = tool.annotations
    again = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
    description = (tool.description or tool.name)[:_MOST_DESCRIPTION]
    return ServerTool(server, tool.name, name, description, dict(tool.input_schema), again)


def _shown(result: Any) -> Result:
    texts, images = [], []
    for part in result.content:
        kind = getattr(part, "type", "")
        if kind == "text":
            texts.append(part.text)
        elif kind == "image" and len(part.data) <= _MOST_IMAGE:
            images.append(Image(part.mime_type, base64.b64decode(part.data)))
        else:
            texts.append(f"[{kind} that cannot be shown]")
    text = cut("\n".join(texts), _MOST_CHARACTERS, "the rest is not kept")
    return Result(text or "[nothing]", bool(result.is_error), tuple(images))


def _why(error: BaseException) -> str:
    """The innermost of what went wrong: groups of errors say little themselves."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return (str(error) or type(error).__name__)[:300]
