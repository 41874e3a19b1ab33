"""A session with a server of tools: its client is entered and left by one task, as the library wants."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp.client.client import Client


class Session(ABC):
    """One, from its beginning; `close` of a kind says how it is left."""

    def __init__(self) -> None:
        self._leaving = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve())

    @property
    def is_over(self) -> bool:
        """Whether nobody is there any more."""
        return self._leaving.is_set() or self._task.done()

    async def client(self) -> Client:
        """The client, when the server has said hello."""
        return await asyncio.shield(self._ready)

    @abstractmethod
    async def _serve(self) -> None:
        """Be there: `_hold` a connection, and say what came of it."""

    async def _hold(self, connection: AbstractAsyncContextManager[Client]) -> None:
        async with connection as client:
            self._ready.set_result(client)
            await self._leaving.wait()

    def _fail(self, failure: Exception) -> None:
        """Nobody gets a client, if none has so far."""
        if not self._ready.done():
            self._ready.set_exception(failure)
            self._ready.exception()  # it may be that nobody waits any more

    def _leave(self) -> None:
        """Have it end; one that has not begun is not waited for."""
        self._leaving.set()
        if not self._ready.done():
            self._task.cancel()
