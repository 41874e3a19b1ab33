"""One reading of a process's output for all who follow it here.

A *feed* follows a stream at its host and keeps the newest of it in memory; readers stand in it, each at an
offset of its own, and are given the same pieces. A feed goes as far ahead as its fastest reader lets it, so
that none stalls another. Who fell out of what it keeps, or asks for what came before, gets a feed of its
own from where it stands, and joins an older one again as soon as that one has what it needs next. So each
reader has every byte once, in order, at its own pace, and costs memory within a bound. All feeds together
have a bound, too: beyond it those whose readers stand still for the longest give up what they keep.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import cached_property
from typing import Final, NamedTuple

from runtools.errors import HostUnavailable
from runtools.platform.kit import http, sse
from runtools.sdk.shapes.processes import OutputEnd, OutputPiece

KEPT_BYTES: Final = 1 << 20
ALL_BYTES: Final = 64 << 20
_AHEAD_BYTES: Final = KEPT_BYTES // 4
_PART_BYTES: Final = 512  # what a piece takes beside its data
_BATCH_BYTES: Final = 128 << 10


class Stream(NamedTuple):
    """One stream of one process, in one history of its sandbox."""

    sandbox: str
    history: str
    process: str
    name: str


Items = AsyncIterator[OutputPiece | OutputEnd]
Begin = Callable[[int], Items]


def place(offset: int, history: str) -> str:
    """Where a reader stands, as the id of an event: an offset, and of which history it is."""
    return f"{offset}@{history}" if history else str(offset)


class Part:
    """A piece of the stream. The event that it is to readers is written once for all of them."""

    def __init__(self, piece: OutputPiece, history: str) -> None:
        self.piece = piece
        self.history = history
        self.end = piece.offset + len(piece.data)
        # With the event, in base64, that it may become.
        self.size = len(piece.data) + (len(piece.data) + 2) // 3 * 4 + _PART_BYTES

    @cached_property
    def event(self) -> bytes:
        """As readers of events get it."""
        return sse.Event("output", http.one(self.piece), place(self.end, self.history)).encode()

    def after(self, at: int) -> Part:
        """What of it comes after an offset before its end."""
        piece = self.piece
        if at == piece.offset - piece.dropped:
            return self
        first = max(at, piece.offset)
        data = piece.data[first - piece.offset :]
        return Part(OutputPiece(offset=first, data=data, dropped=first - at), self.history)


class _Feed:
    """One following of a stream, and the newest of what came."""

    def __init__(
        self, start: int, history: str, items: Items, grown: Callable[[int], None]
    ) -> None:
        self.history = history
        self.low = self.high = start
        self.over: OutputEnd | Exception | None = None
        self.places: dict[object, int] = {}  # where the readers are that stand in it
        self.size = 0
        self.moved = 0  # when a reader last was somewhere, in moves of all feeds
        self._parts: deque[Part] = deque()
        self._grown = grown
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._follow(items))

    def put(self, reader: object, at: int) -> None:
        """A reader stands here now."""
        self.places[reader] = at
        self._room.set()

    def shed(self) -> None:
        """Keep nothing: a reader that goes on is given the rest by another feed."""
        self._parts.clear()
        self.low, size, self.size = self.high, self.size, 0
        self._grown(-size)

    def has(self, at: int) -> bool:
        """Whether a reader can go on here from an offset."""
        return self.low <= at <= self.high

    def batch(self, at: int) -> list[Part]:
        """What comes after an offset that it has; not all of it, where it is much."""
        found: list[Part] = []
        for part in reversed(self._parts):
            if part.end <= at:
                break
            found.append(part)
        batch: list[Part] = []
        room = _BATCH_BYTES
        while found and room > 0:
            part = found.pop().after(at)
            batch.append(part)
            at = part.end
            room -= part.size
        return batch

    async def news(self, seconds: float) -> bool:
        """Wait for more or the end; False when time was up before."""
        try:
            async with asyncio.timeout(seconds):
                return await self._news.wait()
        except TimeoutError:
            return False

    async def close(self) -> None:
        """Follow no more."""
        self._task.cancel()
        self.shed()
        await asyncio.wait((self._task,))

    async def _follow(self, items: Items) -> None:
        try:
            async for item in items:
                if isinstance(item, OutputEnd):
                    self._end(item)
                    return
                self._add(item)
                while self.high - max(self.places.values(), default=self.high) > _AHEAD_BYTES:
                    self._room.clear()
                    await self._room.wait()
            self._end(HostUnavailable("the host ended a stream of output before its end"))
        except Exception as exc:  # noqa: BLE001 - whatever it is, each reader is to raise it
            self._end(exc)
        finally:
            await http.close(items)

    def _add(self, piece: OutputPiece) -> None:
        part = Part(piece, self.history)
        self._parts.append(part)
        self.high = part.end
        before = self.size
        self.size += part.size
        while self.size > KEPT_BYTES and len(self._parts) > 1:
            gone = self._parts.popleft()
            self.low = gone.end
            self.size -= gone.size
        self._tell()
        self._grown(self.size - before)

    def _end(self, how: OutputEnd | Exception) -> None:
        self.over = how
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news.clear()  # whoever waited was woken; the next wait is for the next news


class Feeds:
    """All feeds of one api process."""

    def __init__(self) -> None:
        self._feeds: dict[Stream, list[_Feed]] = {}
        self._moves = 0
        self._size = 0

    def __len__(self) -> int:
        return sum(map(len, self._feeds.values()))

    async def follow(
        self, stream: Stream, start: int, begin: Begin, seconds: float
    ) -> AsyncGenerator[list[Part] | OutputEnd, None]:
        """A stream from an offset on, in batches; an empty one where nothing came for so long.

        Args:
            stream: names it; to one name belong the same bytes, whoever asks.
            start: the offset of the first byte wanted.
            begin: follows it at its host.
            seconds: how long the caller goes without a word.

        Raises:
            RunToolsError: what the host raises.
        """
        me, at = object(), start
        feed = self._enter(stream, me, at, begin)
        try:
            while True:
                if (before := feed) is not (feed := self._enter(stream, me, at, begin)):
                    await self._leave(stream, me, before)
                if batch := feed.batch(at):
                    yield batch
                    at = batch[-1].end
                elif isinstance(feed.over, OutputEnd):
                    yield feed.over
                    return
                elif feed.over is not None:
                    raise feed.over
                elif not await feed.news(seconds):
                    yield []
        finally:
            await self._leave(stream, me, feed)

    def _enter(self, stream: Stream, reader: object, at: int, begin: Begin) -> _Feed:
        """The oldest feed in which a reader can go on, or else a new one."""
        feeds = self._feeds.setdefault(stream, [])
        for feed in feeds:
            if feed.has(at) and (feed.over is None or reader in feed.places):
                break
        else:
            feed = _Feed(at, stream.history, begin(at), self._bound)
            feeds.append(feed)
        self._moves += 1
        feed.moved = self._moves
        feed.put(reader, at)
        return feed

    def _bound(self, more: int) -> None:
        """Make room for all within the bound, by what stands still for the longest."""
        self._size += more
        if more <= 0 or self._size <= ALL_BYTES:
            return
        every = [feed for feeds in self._feeds.values() for feed in feeds]
        for feed in sorted(every, key=lambda feed: feed.moved):
            feed.shed()
            if self._size <= ALL_BYTES:
                return

    async def _leave(self, stream: Stream, reader: object, feed: _Feed) -> None:
        """The last reader of a feed ends it."""
        del feed.places[reader]
        if not feed.places:
            self._feeds[stream].remove(feed)
            if not self._feeds[stream]:
                del self._feeds[stream]
            await feed.close()
