"""The few effects that differ between the async client and the sync one generated from it.

Each comes as a pair, ``async_x`` and ``sync_x``; the generator replaces the one by the other.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, TypeVar

from runtools.errors import RunToolsError

T = TypeVar("T")

LEFT: Final = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)
"""What a caller that no longer waits for its call leaves it by."""
_FAREWELL_SECONDS: Final = 10.0


async def async_sleep(seconds: float) -> None:
    """Wait without holding up other tasks."""
    await asyncio.sleep(seconds)


def sync_sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


async def async_farewell(act: Callable[[], Awaitable[object]]) -> None:
    """Do a last thing on the way out of a call that was left; should it fail, nobody can be told."""
    work = asyncio.ensure_future(act())
    await asyncio.wait([work], timeout=_FAREWELL_SECONDS)
    if not work.done():
        work.cancel()
    elif not work.cancelled():
        work.exception()


def sync_farewell(act: Callable[[], object]) -> None:
    """Do a last thing on the way out of a call that was left; should it fail, nobody can be told."""
    with contextlib.suppress(RunToolsError):
        act()


async def async_chunks(blocking: Iterator[bytes]) -> AsyncIterator[bytes]:
    """What a blocking reader yields, read in a thread."""
    while (chunk := await asyncio.to_thread(next, blocking, None)) is not None:
        yield chunk


def sync_chunks(blocking: Iterator[bytes]) -> Iterator[bytes]:
    """What a blocking reader yields."""
    return blocking


async def async_consume(
    chunks: AsyncIterator[bytes], consumer: Callable[[Iterator[bytes]], T]
) -> T:
    """Hand a stream to a blocking consumer in a thread. Cancelled, it ends the consumer first."""
    loop = asyncio.get_running_loop()
    pending: concurrent.futures.Future[bytes | None] | None = None
    cancelled = False

    async def advance() -> bytes | None:
        return await anext(chunks, None)

    def pull() -> Iterator[bytes]:
        nonlocal pending
        while not cancelled:
            pending = asyncio.run_coroutine_threadsafe(advance(), loop)
            chunk = pending.result()
            if chunk is None:
                return
            yield chunk
        raise concurrent.futures.CancelledError

    work = asyncio.ensure_future(asyncio.to_thread(consumer, pull()))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled = True
        if pending is not None:
            pending.cancel()
        await asyncio.wait([work])
        work.cancelled() or work.exception()  # seen: nobody else will ask for it
        raise


def sync_consume(chunks: Iterator[bytes], consumer: Callable[[Iterator[bytes]], T]) -> T:
    """Hand a stream to a consumer."""
    return consumer(chunks)
