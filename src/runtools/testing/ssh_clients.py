"""OpenSSH's programs as clients that stay, for tests of the SSH gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def background(argv: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client that stays until the body is done, or it ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def says(process: asyncio.subprocess.Process, word: bytes) -> None:
    """Wait until a client has printed a line."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while word not in await process.stdout.readline():
            pass


async def ends(process: asyncio.subprocess.Process, within: float = 20) -> tuple[int, str]:
    """Exit code and stderr of a client that ends by itself."""
    async with asyncio.timeout(within):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


async def open_port(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a port, once somebody listens."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.02)


async def shut(writer: asyncio.StreamWriter) -> None:
    """Close it, and let it be closed."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
