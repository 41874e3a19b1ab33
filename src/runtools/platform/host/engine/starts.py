"""Starts of durable processes on their way to a guest, and those that are not to begin any more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from runtools.errors import ProcessEnded

_MAX_KEPT: Final = 1000


class Starts:
    """Of one sandbox, for as long as its host is up: what waits there to begin ends with that."""

    def __init__(self) -> None:
        self._called_off: OrderedDict[str, None] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def begin(self, process_id: str) -> AsyncIterator[None]:
        """Hand a start to the guest: nobody calls it off from here on.

        Raises:
            ProcessEnded: it was called off.
        """
        async with self._turn(process_id):
            if process_id in self._called_off:
                raise ProcessEnded(
                    f"process {process_id} was ended before it had begun; it was not started",
                    hint="what is to run is started under a name of its own",
                )
            yield

    async def call_off(self, process_id: str) -> None:
        """From here on it does not begin. Returns when the guest has it, or never gets it."""
        self._called_off[process_id] = None
        self._called_off.move_to_end(process_id)
        if len(self._called_off) > _MAX_KEPT:
            self._called_off.popitem(last=False)
        async with self._turn(process_id):
            pass

    def has_begun(self, process_id: str) -> None:
        """The guest knows it, and answers who asks for its start again."""
        self._called_off.pop(process_id, None)

    def _turn(self, process_id: str) -> asyncio.Lock:
        return self._turns.setdefault(process_id, asyncio.Lock())
