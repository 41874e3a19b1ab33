"""``runtools mcp``: sandboxes for any client of the Model Context Protocol."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from runtools.cli.session import acting
from runtools.errors import Unavailable


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="mcp", rich_help_panel="Agents")(mcp)


def mcp(
    sandbox: Annotated[
        str | None,
        typer.Option(metavar="X", help="Offer the tools that work in this sandbox, and no others."),
    ] = None,
) -> None:
    """Offer sandboxes to an MCP client that starts this command (stdin and stdout)."""
    if importlib.util.find_spec("mcp") is None:
        raise Unavailable("the MCP server is not installed", hint="pip install 'runtools[mcp]'")
    import asyncio  # noqa: PLC0415 - no other command needs it

    asyncio.run(_serve(sandbox))


async def _serve(sandbox: str | None) -> None:
    from runtools.mcp import stdio  # noqa: PLC0415 - it loads what no other command needs
    from runtools.sdk.client import AsyncRunTools  # noqa: PLC0415

    found = acting()
    async with AsyncRunTools(found.api_key, found.url) as rt:
        if sandbox is not None:
            sandbox = (await rt.sandboxes.get(sandbox)).id
        await stdio.serve(rt, sandbox)
