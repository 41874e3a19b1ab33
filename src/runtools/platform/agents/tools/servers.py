"""Servers of tools that an agent brings along: MCP at checked addresses, or inside the sandbox (`inside`).

Either lives with the run and its lease: what a server keeps for its session is there for every call of the
run, and nothing has to be found again after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import httpx2

from runtools.errors import RunToolsError
from runtools.platform.agents.link import LinkLost
from runtools.platform.agents.tools import shown
from runtools.platform.agents.tools.inside import Ended, Resident
from runtools.platform.agents.tools.remote import Remote
from runtools.platform.agents.tools.room import Place, Room, Say
from runtools.platform.agents.tools.shown import ServerTool
from runtools.platform.core.runs import servers_of
from runtools.platform.kit.outbound import Outbound, Refused
from runtools.platform.kit.schemas import Schemas
from runtools.sdk.shapes.definitions import McpServer
from runtools.workbench.tool import Result

if TYPE_CHECKING:
    from mcp.client.client import Client

MAX_TOOLS = 128
"""Of all servers together: what providers take beside the built-in ones. Each server has its share."""
MOST_BYTES = 16 * 1024 * 1024
"""Of one answer of a server."""
_MOST_PAGES = 20
_MOST_LISTED = 1000
_MOST_WORDS = 200
_MOST_NAMED = 8
_UNKNOWN_SESSION = "Session terminated"  # as the library says that a server answered with 404
_REFUSED = "Server returned an error response"  # ... and with any other such status
_CLOSED = -32000
_LIST_SECONDS, _CALL_SECONDS = 15.0, 300.0
_START_SECONDS = 60.0  # one in the sandbox may have to be fetched first

Secret = Callable[[str, str], Awaitable[str]]
Http = Callable[[dict[str, str]], httpx2.AsyncClient]


class Servers:
    """The servers of one run.

    Args:
        http: makes a client that connects to checked addresses, with headers of its own.
        secret: a secret of the run by its name and that of the server it is for.
        run_id, lease: whose they are.
    """

    def __init__(
        self,
        servers: list[McpServer],
        http: Http,
        outbound: Outbound,
        schemas: Schemas,
        secret: Secret,
        run_id: str,
        lease: int,
    ) -> None:
        self._servers = servers
        self._http = http
        self._outbound = outbound
        self._schemas = schemas
        self._secret = secret
        self._run_id = run_id
        self._lease = lease
        self._residents: dict[str, Resident] = {}
        self._room: Room | None = None  # of the sandbox, where one of them runs there
        self._remotes: dict[str, Remote] = {}
        self._silent: set[str] = set()
        self.tools: dict[str, ServerTool] = {}
        self.troubles: list[str] = []

    async def look(self, place: Place) -> None:
        """Learn which tools there are. A server that cannot be asked is a trouble the model is told of.

        Args:
            place: the sandbox, for those that run there.
        """
        self._room = room = Room(place)
        for server in self._servers:
            if server.command is not None:
                name = f"{servers_of(self._run_id)}{server.name}"
                self._residents[server.name] = Resident(server, room, name, self._lease)
            else:
                self._remotes[server.name] = Remote(partial(self._opened, server))
        found = await asyncio.gather(*(self._listed(server) for server in self._servers))
        for server, tools, most in zip(self._servers, found, shares(map(len, found)), strict=True):
            if most < len(tools):
                left = f"{len(tools) - most} more tools of {server.name}"
                self.troubles.append(
                    f"{left} (there are too many: its `tools` can name the needed)"
                )
            alike = sum(self.tools.setdefault(one.name, one) is not one for one in tools[:most])
            if alike:
                self.troubles.append(f"{alike} tools of {server.name} (others have their names)")

    def silent(self, name: str) -> str | None:
        """The server that did not say what it has, and of which a tool may be; None: of none."""
        names = (one.name for one in self._servers if one.name in self._silent)
        return next((one for one in names if name.startswith(shown.prefix(one))), None)

    def leave_out(self, names: Sequence[str], said: str) -> None:
        """The model's provider refuses tools, in its words."""
        for name in names:
            self.tools.pop(name, None)
        why = f"the model's provider refuses such a description: {said[:_MOST_WORDS]!r}"
        self.troubles.append(f"{', '.join(names)} ({why})")

    async def call(self, name: str, given: dict[str, Any], say: Say, *, begun: bool) -> Result:
        """Call a tool; whatever goes wrong is a result.

        Args:
            say: told that one in the sandbox waits for room.
            begun: whether the call may have been made before.
        """
        tool = self.tools[name]
        if begun and not tool.again:
            return Result(
                "the platform was restarted while this call was made, and nobody knows whether it was "
                "carried out: look before you call it again",
                failed=True,
            )
        try:
            async with self._within(tool.server, _CALL_SECONDS, say):
                return shown.result(await self._called(tool, given))
        except TimeoutError:
            return Result(
                f"{tool.server.name} did not answer within {_CALL_SECONDS:.0f} s", failed=True
            )
        except (Refused, RunToolsError) as error:
            return Result(str(error), failed=True)
        except LinkLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a stranger's server makes of the client
            return Result(f"{tool.server.name}: {await self._why(tool.server, error)}", failed=True)

    async def _called(self, tool: ServerTool, given: dict[str, Any]) -> Any:
        remote = self._remotes.get(tool.server.name)
        for again in (True, False):
            client = await self._client(tool.server)
            try:
                return await client.call_tool(tool.tool, given)
            except Exception as error:  # whatever a stranger's server makes of the client
                if remote is None or not _is_broken(error):
                    raise
                await remote.leave(client)
                if not again or str(error) != _UNKNOWN_SESSION:
                    raise
                # It was not made: the server knows the session no more, and another is begun.
        raise AssertionError  # the last try returns or raises

    async def close(self) -> None:
        """End those that run in the sandbox, and the sessions with the others."""
        ends = [one.close() for one in self._residents.values()]
        await asyncio.gather(*ends, *(one.close() for one in self._remotes.values()))

    async def _listed(self, server: McpServer) -> list[ServerTool]:
        seconds = _LIST_SECONDS if server.command is None else _START_SECONDS
        try:
            async with self._within(server, seconds, lambda _: None):
                return await self._sound(await self._all_of(server, await self._client(server)))
        except TimeoutError:
            self.troubles.append(f"{server.name} (it did not answer)")
        except LinkLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a stranger's server makes of the client
            self.troubles.append(f"{server.name} ({await self._why(server, error)})")
        self._silent.add(server.name)
        return []

    def _within(
        self, server: McpServer, seconds: float, say: Say
    ) -> AbstractAsyncContextManager[object]:
        """The time that a server has to answer, what its sandbox waits for room left out."""
        if server.command is None or self._room is None:
            return asyncio.timeout(seconds)
        return self._room.within(seconds, say)

    async def _all_of(self, server: McpServer, client: Client) -> list[ServerTool]:
        found: dict[str, ServerTool] = {}
        unlisted, untold = set(server.tools or ()), 0
        why = "not among the first that it lists"
        async for tool in _pages(client):
            if tool is None or len(found) >= _MOST_LISTED:
                break
            if server.tools is not None and tool.name not in server.tools:
                continue
            unlisted.discard(tool.name)
            made = shown.told(server, tool)
            untold += made is None or found.setdefault(made.name, made).tool != made.tool
        else:
            why = "it lists no such tool"
        # A line each, however many: they go to the model with every question.
        if untold:
            self.troubles.append(f"{untold} tools of {server.name} (they cannot be told of)")
        if unlisted:
            names = ", ".join(sorted(unlisted))
            self.troubles.append(f"{names} of {server.name} ({why})")
        return list(found.values())

    async def _sound(self, tools: list[ServerTool]) -> list[ServerTool]:
        """Those whose schema is one: with another no provider takes anything that is asked."""
        faults = await self._schemas.faulty({tool.name: tool.schema for tool in tools})
        if faults:
            where, why = next(iter(faults.values()))
            words = ": ".join(filter(None, [".".join(where), why]))[:_MOST_WORDS]
            more = f" and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
            names = ", ".join(islice(faults, _MOST_NAMED)) + more
            self.troubles.append(f"{names} (of the schema of the first: {words!r})")
        return [tool for tool in tools if tool.name not in faults]

    async def _client(self, server: McpServer) -> Client:
        resident = self._residents.get(server.name)
        if resident is not None:
            return _unjudged(await resident.client())
        return _unjudged(await self._remotes[server.name].client())

    @asynccontextmanager
    async def _opened(self, server: McpServer) -> AsyncIterator[Client]:
        from mcp.client.client import Client  # noqa: PLC0415 - few agents bring servers
        from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

        assert server.url is not None  # noqa: S101 - it has one where it has no command
        await self._outbound.check(server.url)
        headers = {}
        if server.secret is not None:
            value = await self._secret(server.secret, server.name)
            headers["Authorization"] = f"Bearer {value}"
        async with self._http(headers) as http:
            transport = streamable_http_client(
                server.url, http_client=http, max_sse_event_size=MOST_BYTES
            )
            async with Client(transport) as client:
                yield client

    async def _why(self, server: McpServer, error: BaseException) -> str:
        if isinstance(error, Ended | Refused | RunToolsError):
            return str(error)
        resident = self._residents.get(server.name)
        ended = None if resident is None else await resident.how_it_ended()
        return ended or shown.why(error)


async def _pages(client: Client) -> AsyncIterator[Any]:
    """What a server lists, as far as anybody listens; None: it goes on."""
    cursor = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            yield tool
        cursor = page.next_cursor
        if cursor is None:
            return
    yield None


def shares(counts: Iterable[int]) -> list[int]:
    """How many tools of each server there is room for: none is crowded out by another's many."""
    wanted = list(counts)
    given = [0] * len(wanted)
    room = MAX_TOOLS
    while room and (open_ := [n for n, most in enumerate(wanted) if given[n] < most]):
        for n in open_[:room]:
            given[n] += 1
            room -= 1
    return given


def _is_broken(error: Exception) -> bool:
    """Whether a session is good for nothing any more; a server's own word of a failed call is no sign."""
    from mcp.shared.exceptions import MCPError  # noqa: PLC0415

    if not isinstance(error, MCPError):
        return True
    return str(error) in (_UNKNOWN_SESSION, _REFUSED) or error.code == _CLOSED


def _unjudged(client: Client) -> Client:
    """A client that holds no result against the schema that the server itself has sent.

    The model judges it; a schema of a stranger's, with patterns that never come to an end, does not.
    """
    session: Any = client.session
    session.validate_tool_result = _taken
    return client


async def _taken(_name: str, _result: object) -> None:
    """It is as it is."""
