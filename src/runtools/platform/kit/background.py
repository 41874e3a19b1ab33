"""Tasks that go on beside what asked for them; what nobody awaits is logged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from runtools.errors import RunToolsError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Background:
    """The tasks of one part.

    Args:
        expected: failures that are told in a line, beside our own; all others with where they came from.
    """

    def __init__(self, *expected: type[Exception]) -> None:
        self._expected: tuple[type[Exception], ...] = (RunToolsError, *expected)
        self._tasks: set[asyncio.Task[Any]] = set()

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        """Those that go on."""
        return iter(tuple(self._tasks))

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Do the work beside what asked for it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def end(self) -> None:
        """Cancel all that goes on now, and wait until it is over."""
        running = list(self)
        for task in running:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, self._expected):
            log.info("%s: %s", task.get_name(), error)
        else:
            log.error("%s failed", task.get_name(), exc_info=error)
