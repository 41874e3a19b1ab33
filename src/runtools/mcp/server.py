"""The server: which tools there are, and what a call of one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import mcp.types as protocol
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from runtools import __version__
from runtools.errors import RunToolsError
from runtools.mcp.lives import LIVES, Ref
from runtools.sdk.client import AsyncRunTools
from runtools.workbench.bench import Bench
from runtools.workbench.tool import Result, Tool
from runtools.workbench.toolset import TOOLS

_CONVERSATION = "mcp"
_INSTRUCTIONS = (
    "Sandboxes are Linux machines of their own, where you are root. Make one with sandbox_create, or take "
    "one of sandbox_list, and name it in every other tool. A paused one is woken by the tool that uses it."
)
_INSTRUCTIONS_FIXED = "The tools work in one sandbox, a Linux machine where you are root."

Context = ServerRequestContext[Any, Any]
Connect = Callable[[Context], AbstractAsyncContextManager[AsyncRunTools]]


def make(connect: Connect, sandbox: str | None = None) -> Server[Any]:
    """A server.

    Args:
        connect: a client of the platform, with the key of whoever calls, for one call.
        sandbox: id or name of the sandbox that all tools work in; default: each call names one.
    """

    async def list_tools(_: Context, __: object) -> protocol.ListToolsResult:
        return protocol.ListToolsResult(tools=shown(named=sandbox is None))

    async def call_tool(
        context: Context, asked: protocol.CallToolRequestParams
    ) -> protocol.CallToolResult:
        async def made() -> Result:
            async with connect(context) as rt:
                return await call(rt, asked.name, asked.arguments or {}, sandbox)

        try:
            result = await _alone(made())
        except RunToolsError as error:
            result = Result(f"{error.code}: {error}", failed=True)
        text = protocol.TextContent(type="text", text=result.text)
        return protocol.CallToolResult(content=[text], is_error=result.failed)

    return Server(
        "runtools",
        version=__version__,
        title="RunTools sandboxes",
        instructions=_INSTRUCTIONS if sandbox is None else _INSTRUCTIONS_FIXED,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def _alone(making: Coroutine[Any, Any, Result]) -> Result:
    """Make a call in a task of its own. Whoever is cancelled cancels that once, and waits until it is over.

    The library cancels what it has under way at each step that is left, those on the way out included: no
    command would be ended, and no connection closed.
    """
    task = asyncio.ensure_future(making)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            return Result("the client has cancelled the call", failed=True)
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # there is nobody left to hear of it
        raise


def shown(*, named: bool) -> list[protocol.Tool]:
    """The tools as clients see them; ``named``: each call names its sandbox."""
    inside = [
        _shown(tool, _named(tool.schema) if named else tool.schema) for tool in TOOLS.values()
    ]
    return [*(_shown(tool, tool.schema) for tool in LIVES.values() if named), *inside]


async def call(
    rt: AsyncRunTools, name: str, given: dict[str, Any], fixed: str | None = None
) -> Result:
    """Do what a client asks for.

    Raises:
        RunToolsError: what no other call would mend.
    """
    if name in LIVES and fixed is None:
        return await LIVES[name].call(rt, given)
    if name not in TOOLS:
        return Result(f"there is no tool {name[:80]!r}", failed=True)
    ref = fixed or given.get("sandbox")
    if not isinstance(ref, str) or not ref:
        return Result("invalid parameters: sandbox: name one by its id or name", failed=True)
    rest = (
        given if fixed else {field: value for field, value in given.items() if field != "sandbox"}
    )
    bench = Bench(await rt.sandboxes.get(ref), _CONVERSATION)
    return await TOOLS[name].call(bench, rest)


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    field = {"type": "string", "minLength": 1, "description": Ref.description}
    return {
        **schema,
        "properties": {"sandbox": field, **schema.get("properties", {})},
        "required": ["sandbox", *schema.get("required", [])],
    }


def _shown(tool: Tool[Any, Any], schema: dict[str, Any]) -> protocol.Tool:
    return protocol.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=schema,
        annotations=protocol.ToolAnnotations(
            read_only_hint=not tool.changes, destructive_hint=tool.loses
        ),
    )
