"""Waiting with a run's sandbox until it can be worked in, and saying so while it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from runtools.errors import Conflict, WaitsForRoom
from runtools.sdk.sandbox import AsyncSandbox

T = TypeVar("T")
Place = Callable[[], Awaitable[AsyncSandbox]]
"""The sandbox of the run, made where there is none yet."""
Say = Callable[[str], None]


class Room:
    """Those who work beside each other in a run's sandbox: what they wait for room is not their time."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._waiting = 0
        self._limits: dict[asyncio.Timeout, tuple[float, Say]] = {}

    @asynccontextmanager
    async def within(self, seconds: float, say: Say) -> AsyncIterator[None]:
        """What `asyncio.timeout` does, but for the time in which somebody waits for room.

        Args:
            say: told what is waited for meanwhile.
        """
        async with asyncio.timeout(None if self._waiting else seconds) as limit:
            self._limits[limit] = seconds, say
            try:
                yield
            finally:
                del self._limits[limit]

    async def made(self, act: Callable[[AsyncSandbox], Awaitable[T]]) -> T:
        """Do something once there is room, however long that takes.

        Raises:
            SandboxStopped, Conflict: see `waited`.
        """
        is_waiting = False
        with self._uncounted():
            while True:
                sandbox = await self._place()
                await waited(sandbox, self._say, look=is_waiting)
                try:
                    return await act(sandbox)
                except WaitsForRoom:
                    is_waiting = True  # nothing was begun

    def _say(self, line: str) -> None:
        for _, say in list(self._limits.values()):
            say(line)

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        clock = asyncio.get_running_loop().time
        if not self._waiting:
            for limit, (_, say) in self._limits.items():
                if (end := limit.when()) is not None and not limit.expired():
                    self._limits[limit] = max(end - clock(), 0.0), say
                    limit.reschedule(None)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                for limit, (left, _) in self._limits.items():
                    if not limit.expired():
                        limit.reschedule(clock() + left)


async def waited(sandbox: AsyncSandbox, say: Say, *, look: bool) -> None:
    """Wait while it is being made or waits for room, however long: a cancel and the run's time end it.

    Args:
        say: told what it waits for, whenever that is something else.
        look: whether it was refused for want of room, so that what is known of it is old.

    Raises:
        SandboxStopped: it never came to run.
        Conflict: it was paused again meanwhile: somebody does not want it to go on.
    """
    told = ""

    def tell(now: AsyncSandbox) -> None:
        nonlocal told
        if (line := _line(now)) != told:
            told = line
            say(line)

    if look:
        await sandbox.refresh()
    await sandbox.wait_until_running(on_wait=tell)
    if look and sandbox.state == "paused":
        raise Conflict(
            f"{sandbox.id} was paused before there was room for it, and nothing was done"
        )


def _line(sandbox: AsyncSandbox) -> str:
    if sandbox.queue is not None:
        return f"[the sandbox waits for room on its host: place {sandbox.queue.position}]\n"
    return f"[the sandbox is {'being made' if sandbox.state == 'creating' else 'waking'}]\n"
