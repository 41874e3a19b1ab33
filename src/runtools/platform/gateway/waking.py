"""Has sandboxes woken: once for all who want the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

WhomT = TypeVar("WhomT")


class Waking(Generic[WhomT]):
    """Those that are being woken.

    Args:
        ask: has the api wake one.
    """

    def __init__(self, ask: Callable[[WhomT], Coroutine[Any, Any, None]]) -> None:
        self._ask = ask
        self._under_way: dict[WhomT, asyncio.Task[None]] = {}

    async def waken(self, whom: WhomT) -> None:
        """Have one awake whose org has limits to keep.

        Raises:
            RunToolsError: what the api says instead.
        """
        waking = self._under_way.get(whom)
        if waking is None:
            waking = asyncio.create_task(self._ask(whom))
            self._under_way[whom] = waking
            waking.add_done_callback(lambda _: self._under_way.pop(whom, None))
        await asyncio.shield(waking)
