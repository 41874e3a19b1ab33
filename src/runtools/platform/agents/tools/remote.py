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

from runtools.platform.agents.tools.session import Session

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


class _Session(Session):
    """A connection to it."""

    def __init__(self, opened: AbstractAsyncContextManager[Client]) -> None:
        self._opened = opened
        super().__init__()

    @property
    def is_ready(self) -> bool:
        """Whether the server has said hello."""
        return self._ready.done() and not self._ready.cancelled() and not self._ready.exception()

    def is_of(self, client: Client) -> bool:
        """Whether it is that client's."""
        return self.is_ready and self._ready.result() is client

    async def close(self) -> None:
        """Leave; a server that does not take its leave is not waited for."""
        self._leave()
        await asyncio.wait((self._task,), timeout=_LEAVE_SECONDS)
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _serve(self) -> None:
        try:
            await self._hold(self._opened)
        except Exception as failure:  # noqa: BLE001 - whatever a stranger's server makes of the client
            log.info("the session with a server of tools: %r", type(failure))
            self._fail(failure)
        finally:
            self._leaving.set()
            if not self._ready.done():
                self._ready.cancel()
