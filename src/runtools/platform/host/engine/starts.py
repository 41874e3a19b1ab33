"""Starts of durable processes on their way to a guest, and those that are not to begin any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from runtools.errors import ProcessEnded


class Starts:
    """Of one sandbox.

    Args:
        is_called_off: whether a process is not to begin any more; the sandbox's journal knows.
    """

    def __init__(self, is_called_off: Callable[[str], bool]) -> None:
        self._is_called_off = is_called_off
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def begin(self, process_id: str) -> AsyncIterator[None]:
        """Hand a start to the guest: nobody calls it off from here on.

        Raises:
            ProcessEnded: it was called off.
        """
        async with self.turn(process_id):
            if self._is_called_off(process_id):
                raise ProcessEnded(
                    f"the end of process {process_id} was asked for: it is not started",
                    hint="what is to run is started under a name of its own",
                )
            yield

    def turn(self, process_id: str) -> asyncio.Lock:
        """Held while a start of it is on its way to the guest; who holds it keeps others from that."""
        return self._turns.setdefault(process_id, asyncio.Lock())
