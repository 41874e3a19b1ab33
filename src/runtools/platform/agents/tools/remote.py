"""Servers of tools at an address: one session for a run and its lease, as some keep what was done in one.

It is opened when it is first needed and left when the worker lets go of the run. Where the server knows it
no more, or the connection is gone, the next call opens another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp.client.client import Client

log = logging.getLogger(__name__)

_LEAVE_SECONDS = 5.0

Open = Callable[[], AbstractAsyncContextManager["Client"]]


class Remote:
    """One server, as one run has it.

    Args:
        opened: connects to it.
    """

    def __init__(self, opened: Open) -> None:
        self._open = opened
        self._session: _Session | None = None

    async def client(self) -> Client:
        """A client in its session.

        Raises:
            Exception: whatever connecting to it came to.
        """
        if self._session is None or self._session.is_over:
            self._session = _Session(self._open())
        session = self._session
        try:
            return await session.client()
        except BaseException:
            if not session.is_ready:  # nobody waits for it any more
                await session.close()
            raise

    async def leave(self, client: Client) -> None:
        """That client's session is good for nothing any more."""
        session = self._session
        if session is not None and session.is_of(client):
            self._session = None
            await session.close()

    async def close(self) -> None:
        """End it."""
        if self._session is not None:
            await self._session.close()


class _Session:
    """A connection that is entered and left by one task."""

    def __init__(self, opened: AbstractAsyncContextManager[Client]) -> None:
        self._opened = opened
        self._leaving = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve())

    @property
    def is_over(self) -> bool:
        """Whether nobody is there any more."""
        return self._leaving.is_set() or self._task.done()

    @property
    def is_ready(self) -> bool:
        """Whether the server has said hello."""
        return self._ready.done() and not self._ready.cancelled() and not self._ready.exception()

    def is_of(self, client: Client) -> bool:
        """Whether it is that client's."""
        return self.is_ready and self._ready.result() is client

    async def client(self) -> Client:
        """The client, when the server has said hello."""
        return await asyncio.shield(self._ready)

    async def close(self) -> None:
        """Leave; a server that does not take its leave is not waited for."""
        self._leaving.set()
        if not self._ready.done():
            self._task.cancel()
        await asyncio.wait((self._task,), timeout=_LEAVE_SECONDS)
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _serve(self) -> None:
        try:
            async with self._opened as client:
                self._ready.set_result(client)
                await self._leaving.wait()
        except Exception as failure:  # noqa: BLE001 - whatever a stranger's server makes of the client
            log.info("the session with a server of tools: %r", type(failure))
            if not self._ready.done():
                self._ready.set_exception(failure)
                self._ready.exception()  # it may be that nobody waits any more
        finally:
            self._leaving.set()
            if not self._ready.done():
                self._ready.cancel()
