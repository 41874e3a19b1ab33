"""Those who read a run's events: what stands in its log, then what comes, each at a pace of its own.

For each run that is read there is one feed, which keeps the newest of its log in memory, so that the
database is
read once for all who follow. Who began earlier, or fell behind, reads the log itself until it has caught
up. Live
pieces (deltas) are handed on and kept for nobody: a slow reader loses them, and never an event of the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Final

from runtools.platform.api.events.bus import LOOK_AGAIN_SECONDS, Watch
from runtools.platform.api.runs import look
from runtools.platform.api.runs.tables import Event
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.sse import PING, PING_SECONDS

KEPT_BYTES: Final = 1 << 20
PIECES: Final = 512
PIECES_BYTES: Final = 256 << 10
_END: Final = "done"

Log = Callable[[int], Awaitable[tuple[list[Event], bool]]]
"""Reads a piece of a run's log after a number, and tells whether there may be more."""


class _Reader:
    """Somebody who reads: the live pieces that it has not been given."""

    def __init__(self) -> None:
        self.watch = Watch()
        # Each with the number of the event that it comes after.
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._size = 0

    def put(self, after: int, piece: bytes) -> None:
        """A live piece; the oldest go where there are too many."""
        self._pieces.append((after, piece))
        self._size += len(piece)
        while len(self._pieces) > PIECES or self._size > PIECES_BYTES:
            self._drop()
        self.watch.signal()

    def take(self, position: int) -> list[bytes]:
        """Those that come after an event, before the next; what came after earlier ones is out of date."""
        found: list[bytes] = []
        while self._pieces and self._pieces[0][0] <= position:
            after, piece = self._drop()
            if after == position:
                found.append(piece)
        return found

    def _drop(self) -> tuple[int, bytes]:
        after, piece = self._pieces.popleft()
        self._size -= len(piece)
        return after, piece


class _Feed:
    """The newest of one run's log, and those who read it."""

    def __init__(self) -> None:
        self.readers: set[_Reader] = set()
        self.high: int | None = None  # None: nobody has caught up yet
        self.looked = float("-inf")
        self._tail: deque[tuple[int, bytes, bool]] = deque()
        self._size = 0

    @property
    def low(self) -> int:
        """The number of the first event that it keeps, or of the next to come."""
        if self._tail:
            return self._tail[0][0]
        return (self.high or 0) + 1

    def grow(self, events: Sequence[Event]) -> None:
        """Take in what comes next; what does not is found in the log by whoever looks."""
        for event in events:
            if self.high is None or event.seq != self.high + 1:
                continue
            data = look.written(event)
            self._tail.append((event.seq, data, event.type == _END))
            self._size += len(data)
            self.high = event.seq
            while self._size > KEPT_BYTES and len(self._tail) > 1:
                self._size -= len(self._tail.popleft()[1])
        self.tell()

    def after(self, position: int) -> list[tuple[int, bytes, bool]]:
        """What it keeps after a number that is not before all it keeps."""
        found = list(takewhile(lambda one: one[0] > position, reversed(self._tail)))
        return found[::-1]

    def tell(self) -> None:
        """Wake everybody."""
        for reader in self.readers:
            reader.watch.signal()


class Readers:
    """All who read in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._feeds: dict[str, _Feed] = {}

    def __len__(self) -> int:
        return sum(len(feed.readers) for feed in self._feeds.values())

    def grown(self, run_id: str, events: Sequence[Event]) -> None:
        """Events have been appended to a run's log by this process."""
        if events and (feed := self._feeds.get(run_id)) is not None:
            feed.grow(events)

    def reads(self, run_id: str) -> bool:
        """Whether anybody reads a run here."""
        return run_id in self._feeds

    def piece(self, run_id: str, written: bytes) -> None:
        """A live piece of a run, for those who read it now and have read all before it."""
        feed = self._feeds.get(run_id)
        if feed is None or feed.high is None:
            return
        for reader in feed.readers:
            reader.put(feed.high, written)

    async def follow(
        self, run_id: str, after: int, log: Log, may: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[bytes, None]:
        """A run's events after a number, as they are written on a stream, until its end.

        Args:
            run_id: whose.
            after: the number of the last event that the reader has.
            log: reads the run's log.
            may: whether the reader may go on.
        """
        feed = self._feeds.setdefault(run_id, _Feed())
        me = _Reader()
        feed.readers.add(me)
        position, spoke = after, self._clock.monotonic()
        try:
            while await may():
                behind = feed.high is None or position + 1 < feed.low
                given, position, over = (
                    await self._catch_up(feed, position, log)
                    if behind
                    else _next(feed, me, position)
                )
                if given:
                    spoke = self._clock.monotonic()
                    yield given
                if over:
                    return
                if given or (behind and position + 1 >= feed.low):
                    continue  # where nothing was found and it is still behind, the log is gone
                if self._clock.monotonic() - spoke >= PING_SECONDS:
                    spoke = self._clock.monotonic()
                    yield PING
                await me.watch.wait()
                await self._look(feed, log)
        finally:
            feed.readers.discard(me)
            if not feed.readers:
                self._feeds.pop(run_id, None)

    async def _catch_up(self, feed: _Feed, position: int, log: Log) -> tuple[bytes, int, bool]:
        """Read the log from where a reader stands."""
        found, more = await log(position)
        if found:
            position = found[-1].seq
        if not more and feed.high is None:
            feed.high = position
        over = bool(found) and found[-1].type == _END
        return b"".join(look.written(one) for one in found), position, over

    async def _look(self, feed: _Feed, log: Log) -> None:
        """Look into the log now and then, one for all: another process may have written."""
        now = self._clock.monotonic()
        if feed.high is None or now - feed.looked < LOOK_AGAIN_SECONDS:
            return
        feed.looked = now
        found, _ = await log(feed.high)
        if found:
            feed.grow(found)


def _next(feed: _Feed, me: _Reader, position: int) -> tuple[bytes, int, bool]:
    """What a reader is given next: live pieces that come after its last event, then further events."""
    given: list[bytes] = []
    for seq, data, over in [*feed.after(position), (0, b"", False)]:
        given += me.take(position)
        if seq == 0:
            break
        given.append(data)
        position = seq
        if over:
            return b"".join(given), position, True
    return b"".join(given), position, False
