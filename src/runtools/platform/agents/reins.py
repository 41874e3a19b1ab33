"""What breaks off work under way: a cancel, a person who interrupts, a limit of time, a worker's end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Why = Literal["cancel", "interrupt", "limit", "leave"]
_WEIGHT: dict[Why, int] = {"interrupt": 0, "limit": 1, "cancel": 2, "leave": 3}


class Broken(Exception):
    """Work was broken off."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


class Reins:
    """Held by whoever drives a run; pulled by whoever wants it to stop what it does."""

    def __init__(self) -> None:
        self._why: Why | None = None
        self._pulled = asyncio.Event()

    @property
    def why(self) -> Why | None:
        """What they were pulled for."""
        return self._why

    def pull(self, why: Why) -> None:
        """Break off what is under way; of several reasons the weightiest counts."""
        if self._why is None or _WEIGHT[why] > _WEIGHT[self._why]:
            self._why = why
        self._pulled.set()

    def slacken(self, why: Why) -> None:
        """What was wanted is done: go on, unless something weightier was wanted meanwhile."""
        if self._why == why:
            self._why = None
            self._pulled.clear()

    def check(self) -> None:
        """Raise `Broken` where they are pulled."""
        if self._why is not None:
            raise Broken(self._why)

    async def hold(self, work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
        """Have something done, unless they are pulled before its end: then it is cancelled.

        Raises:
            Broken: they were.
        """
        if self._why is not None and not isinstance(work, asyncio.Task):
            work.close()
            raise Broken(self._why)
        task = asyncio.ensure_future(work)
        pulled = asyncio.ensure_future(self._pulled.wait())
        try:
            await asyncio.wait({task, pulled}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            pulled.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it is broken off, however it ended
        assert self._why is not None  # noqa: S101 - nothing else ends the wait
        raise Broken(self._why)
