"""A bench in a sandbox with the real guest agent; only the machine is a local process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio

from runtools import AsyncRunTools
from runtools.testing.local_platform import local_platform
from runtools.workbench.bench import Bench
from runtools.workbench.tool import Result
from runtools.workbench.toolset import TOOLS

Call = Callable[..., Awaitable[Result]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: Any) -> AsyncIterator[AsyncRunTools]:
    """A client of a platform."""
    folder: Path = tmp_path_factory.mktemp("platform")
    async with local_platform(folder) as (url, key), AsyncRunTools(key, url) as rt:
        yield rt


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(platform: AsyncRunTools) -> Bench:
    """A bench in a sandbox."""
    return Bench(await platform.sandboxes.create(), "test", max_characters=2000)


@pytest_asyncio.fixture(loop_scope="module")
async def call(bench: Bench) -> Call:
    """Call a tool."""

    async def made(tool: str, **given: Any) -> Result:
        return await TOOLS[tool].call(bench, given)

    return made
