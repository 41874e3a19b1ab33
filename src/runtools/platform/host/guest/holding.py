"""How much of what guests send is held in memory at once, by all of them together.

What one command prints is bounded; a hundred that are answered in the same moment are not. So room is
taken for an output before it is read, first come, first served, and given back when nobody has it any more.
The sizes are a guest's own word: so each has a share, and what it claims beyond that waits behind itself
alone. All guests of an org have a share together, so that many of them are no more than half of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from runtools.errors import Unavailable

MOST_BYTES: Final = 256 << 20
# Of one guest: two commands that print as much as they may, into both streams.
SHARE_BYTES: Final = 32 << 20
# Of all guests of one org: the other half is there for others, whatever those do.
ORG_BYTES: Final = MOST_BYTES // 2
# What nearly every command prints: not counted, so that the outputs of few make no other wait.
SMALL_BYTES: Final = 64 << 10
_WAIT_SECONDS: Final = 20.0


class Holding:
    """The measure; one for a host."""

    def __init__(self, most: int = MOST_BYTES, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._most = most
        self.wait_seconds = wait_seconds
        self._held = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._queue)

    async def take(self, count: int, until: float | None = None) -> Callable[[], None]:
        """Room for so many bytes; what is returned gives it back, and is to be called once.

        ``until``, by the loop's time, is when whoever has waited elsewhere for it already is to be told.

        Raises:
            Unavailable: there was none for too long.
        """
        if count <= SMALL_BYTES:
            return _nothing
        if self._queue or self._held + count > self._most:
            await self._turn(count, until or _due(self.wait_seconds))
        else:
            self._held += count
        return partial(self._give_back, count)

    async def _turn(self, count: int, until: float) -> None:
        waiter = (count, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        try:
            async with asyncio.timeout_at(until):
                await waiter[1]
        except BaseException as exc:
            if waiter in self._queue:
                self._queue.remove(waiter)
                self._serve()
            else:
                self._give_back(count)  # its turn came meanwhile
            if isinstance(exc, TimeoutError):
                raise Unavailable(
                    f"so much output of commands is on its way that for {self.wait_seconds:g} s there was "
                    f"no room to read another {count} bytes",
                    hint="the command has ended: ask again under the same process id, or for less by "
                    "maxOutputBytes",
                ) from None
            raise

    def _give_back(self, count: int) -> None:
        self._held -= count
        self._serve()

    def _serve(self) -> None:
        while self._queue and self._held + self._queue[0][0] <= self._most:
            count, turn = self._queue.popleft()
            if not turn.done():
                self._held += count
                turn.set_result(None)


class Share:
    """What one guest may take of it, or all guests of one org."""

    def __init__(self, whole: Holding | Share, most: int = SHARE_BYTES) -> None:
        self._whole = whole
        self.wait_seconds: float = whole.wait_seconds
        self._own = Holding(most, self.wait_seconds)

    @property
    def waiting(self) -> int:
        """How many wait for others of the same guest (or org), and not among those of all."""
        return self._own.waiting

    async def take(self, count: int, until: float | None = None) -> Callable[[], None]:
        """Room for so many bytes, of the share and then of the whole, both in the time that is for one.

        Raises:
            Unavailable: there was none for too long.
        """
        until = until or _due(self.wait_seconds)
        give_back = await self._own.take(count, until)
        try:
            and_to_all = await self._whole.take(count, until)
        except BaseException:
            give_back()
            raise

        def both() -> None:
            and_to_all()
            give_back()

        return both


class Outputs:
    """The measure of a host: of all, of each org."""

    def __init__(self) -> None:
        self._whole = Holding()
        self._orgs: dict[str, Share] = {}

    def of(self, org_id: str) -> Holding | Share:
        """What the guests of an org may take together; of no known one, each its own share alone."""
        if not org_id:
            return self._whole
        return self._orgs.setdefault(org_id, Share(self._whole, ORG_BYTES))


def _due(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _nothing() -> None:
    """There is nothing to give back."""
