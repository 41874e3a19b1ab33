"""One reading of a stream for many readers: every byte once for each, whatever the others do."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from runtools.errors import HostUnavailable, InvalidRequest
from runtools.platform.api.processes.feeds import KEPT_BYTES, Feeds, Items, Part, Stream
from runtools.sdk.shapes.processes import OutputEnd, OutputPiece, OutputSpan, Process

NAME = Stream("sandbox-1", "1", "prc_1", "output")
SEED = int(os.environ.get("RT_TEST_SEED") or random.randrange(1 << 30))
NOTHING = OutputSpan(kept_from=0, end=0)
ENDED = Process(
    id="prc_1",
    command="x",
    cwd="/",
    user="root",
    pid=None,
    terminal=None,
    state="ended",
    exit_code=0,
    signal=None,
    input_open=False,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    ended_at=datetime(2026, 1, 1, tzinfo=UTC),
    output=NOTHING,
    stdout=NOTHING,
    stderr=NOTHING,
)


class Source:
    """A process that prints what a test has it print, and who follows it at its host."""

    def __init__(self) -> None:
        self.data = b""
        self.kept_from = 0
        self.piece = 1000
        self.begun: list[int] = []
        self.open = 0
        self.ended = False
        self.broken: Exception | None = None
        self._news = asyncio.Event()

    def prints(self, data: bytes) -> None:
        self.data += data
        self._tell()

    def ends(self) -> None:
        self.ended = True
        self._tell()

    def breaks(self, exc: Exception | None) -> None:
        self.broken = exc
        self._tell()

    def follow(self, at: int) -> Items:
        self.begun.append(at)
        return self._follow(at)

    async def _follow(self, at: int) -> AsyncIterator[OutputPiece | OutputEnd]:
        self.open += 1
        try:
            while True:
                if self.broken is not None:
                    raise self.broken
                first = max(at, self.kept_from)
                data = self.data[first : first + self.piece]
                if data or first > at:
                    yield OutputPiece(offset=first, data=data, dropped=first - at)
                    at = first + len(data)
                elif self.ended:
                    yield OutputEnd(offset=at, process=ENDED)
                    return
                else:
                    await self._news.wait()
        finally:
            self.open -= 1

    def _tell(self) -> None:
        self._news.set()
        self._news.clear()


class Reader:
    """One that reads when the test says so; bytes that were dropped are None in ``got``'s gaps."""

    def __init__(self, feeds: Feeds, source: Source, start: int = 0) -> None:
        self.at = start
        self.data = b""
        self.gaps: list[tuple[int, int]] = []
        self.end: int | None = None
        self.items = feeds.follow(NAME, start, source.follow, 30)

    async def next(self) -> None:
        item = await asyncio.wait_for(anext(self.items), 60)
        if isinstance(item, OutputEnd):
            self.end = item.offset
            return
        assert item
        for part in item:
            piece = part.piece
            assert piece.offset == self.at + piece.dropped, "a hole, or bytes twice"
            if piece.dropped:
                self.gaps.append((self.at, piece.dropped))
            self.data += piece.data
            self.at = piece.offset + len(piece.data)
            assert part.end == self.at

    async def until(self, at: int) -> None:
        while self.at < at:
            await self.next()

    async def to_end(self) -> None:
        while self.end is None:
            await self.next()

    async def close(self) -> None:
        await self.items.aclose()


@pytest.fixture
async def source() -> Source:
    return Source()


@pytest.fixture
async def feeds(source: Source) -> AsyncGenerator[Feeds, None]:
    made = Feeds()
    yield made
    assert len(made) == 0, "a feed was left behind"
    assert made._size == 0, "the count of what is kept is off"
    assert source.open == 0, "a stream of the host was left open"


async def waiting(*readers: Reader) -> list[asyncio.Task[None]]:
    """The readers, each waiting for what comes next."""
    tasks = [asyncio.ensure_future(reader.next()) for reader in readers]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


class TestMany:
    async def test_many_readers_are_one_at_the_host(self, feeds: Feeds, source: Source) -> None:
        readers = [Reader(feeds, source) for _ in range(20)]
        tasks = await waiting(*readers)
        source.prints(b"hello")
        await asyncio.gather(*tasks)
        source.prints(b" world")
        source.ends()
        await asyncio.gather(*(reader.to_end() for reader in readers))
        assert {reader.data for reader in readers} == {b"hello world"}
        assert {reader.end for reader in readers} == {11}
        assert source.begun == [0]

    async def test_they_are_given_the_very_same_pieces(self, feeds: Feeds, source: Source) -> None:
        source.prints(b"x" * 5000)
        got: list[list[Part]] = []
        for _ in range(2):
            items = feeds.follow(NAME, 0, source.follow, 30)
            got.append([])
            async with aclosing(items):
                while sum(part.size for part in got[-1]) < 5000:
                    batch = await anext(items)
                    assert isinstance(batch, list)
                    got[-1] += batch
        assert [part.event for part in got[0]] == [part.event for part in got[1]]

    async def test_streams_of_other_names_are_apart(self, feeds: Feeds, source: Source) -> None:
        other = Source()
        source.prints(b"mine")
        other.prints(b"theirs")
        one = Reader(feeds, source)
        items = feeds.follow(NAME._replace(sandbox="sandbox-2"), 0, other.follow, 30)
        await one.next()
        batch = await anext(items)
        assert isinstance(batch, list)
        assert (one.data, batch[0].piece.data) == (b"mine", b"theirs")
        await one.close()
        await items.aclose()
        assert other.open == 0

    async def test_after_a_rollback_nobody_joins(self, feeds: Feeds, source: Source) -> None:
        source.prints(b"mine")
        before = Reader(feeds, source)
        await before.next()
        source.data = b"another"
        items = feeds.follow(NAME._replace(history="2"), 0, source.follow, 30)
        batch = await anext(items)
        assert isinstance(batch, list)
        assert b"".join(part.piece.data for part in batch) == b"another"
        assert b"id: 7@2\n" in batch[-1].event
        assert source.begun == [0, 0]
        await before.close()
        await items.aclose()

    async def test_a_word_now_and_then_where_nothing_comes(
        self, feeds: Feeds, source: Source
    ) -> None:
        items = feeds.follow(NAME, 0, source.follow, 0.001)
        assert await anext(items) == []
        source.prints(b"x")
        batch = await anext(items)
        while batch == []:
            batch = await anext(items)
        assert isinstance(batch, list)
        assert batch[0].piece.data == b"x"
        await items.aclose()


class TestPace:
    async def test_a_reader_that_never_reads_stalls_nobody(
        self, feeds: Feeds, source: Source
    ) -> None:
        source.piece = 60_000
        stuck, fast = Reader(feeds, source), Reader(feeds, source)
        source.prints(b"first")
        await stuck.next()
        printed = os.urandom(KEPT_BYTES * 3)
        for at in range(0, len(printed), 200_000):
            source.prints(printed[at : at + 200_000])
            await fast.until(5 + min(at + 200_000, len(printed)))
        assert fast.data == b"first" + printed
        assert source.begun == [0]
        # It comes back: what the feed no longer has comes from the host, from its own offset on.
        source.ends()
        await stuck.to_end()
        assert stuck.data == b"first" + printed
        assert source.begun == [0, 5]
        await fast.to_end()

    async def test_alone_it_holds_the_host_back(self, feeds: Feeds, source: Source) -> None:
        source.piece = 20_000
        source.prints(bytes(KEPT_BYTES * 4))
        stuck = Reader(feeds, source)
        await stuck.next()
        for _ in range(1000):
            await asyncio.sleep(0)
        (feed,) = feeds._feeds[NAME]
        assert feed.high - stuck.at <= KEPT_BYTES // 2 + source.piece
        await stuck.until(len(source.data))
        assert source.begun == [0]
        await stuck.close()

    async def test_what_is_kept_is_bounded_for_small_pieces_too(
        self, feeds: Feeds, source: Source
    ) -> None:
        source.piece = 1
        source.prints(bytes(10_000))
        fast = Reader(feeds, source)
        await fast.until(10_000)
        (feed,) = feeds._feeds[NAME]
        assert sum(part.size for part in feed._parts) <= KEPT_BYTES
        assert feed.high - feed.low < 3000
        await fast.close()

    async def test_what_all_keep_together_is_bounded(
        self, feeds: Feeds, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bound = 300_000
        monkeypatch.setattr("runtools.platform.api.processes.feeds.ALL_BYTES", bound, raising=False)
        source.prints(os.urandom(100_000))
        names = [NAME._replace(sandbox=f"sandbox-{number}") for number in range(10)]
        readers = []
        for name in names:
            reader = Reader(feeds, source)
            reader.items = feeds.follow(name, 0, source.follow, 30)
            readers.append(reader)
            await reader.next()
            for _ in range(1000):
                await asyncio.sleep(0)
            kept = [
                part for every in feeds._feeds.values() for feed in every for part in feed._parts
            ]
            assert sum(len(part.piece.data) + len(part.event) for part in kept) <= bound
        source.ends()
        for reader in readers:
            await reader.to_end()
            assert reader.data == source.data

    async def test_one_batch_is_not_all_that_there_is(self, feeds: Feeds, source: Source) -> None:
        source.piece = 10_000
        source.prints(bytes(400_000))
        first, second = Reader(feeds, source), Reader(feeds, source)
        await first.until(400_000)
        batch = await anext(second.items)
        assert isinstance(batch, list)
        assert batch[-1].end < 200_000
        await first.close()
        await second.close()


class TestJoining:
    async def test_late_and_in_the_middle_of_a_piece(self, feeds: Feeds, source: Source) -> None:
        early = Reader(feeds, source)
        source.prints(b"0123456789")
        await early.next()
        late = Reader(feeds, source, start=4)
        await late.next()
        assert late.data == b"456789"
        at_end = Reader(feeds, source, start=10)
        (task,) = await waiting(at_end)
        source.prints(b"!")
        await task
        assert at_end.data == b"!"
        assert source.begun == [0]
        for reader in (early, late, at_end):
            await reader.close()

    async def test_from_before_what_is_kept_and_back_to_the_others(
        self, feeds: Feeds, source: Source
    ) -> None:
        source.piece = 50_000
        source.prints(os.urandom(KEPT_BYTES * 3))
        live = Reader(feeds, source)
        await live.until(len(source.data))
        late = Reader(feeds, source)
        await late.next()
        assert (source.begun, source.open, len(feeds)) == ([0, 0], 2, 2)
        await late.until(len(source.data))
        (task,) = await waiting(late)
        assert (source.open, len(feeds)) == (1, 1), "it did not join the others again"
        source.prints(b"end")
        await task
        await live.next()
        assert live.data == late.data == source.data
        await live.close()
        await late.close()

    async def test_beyond_what_the_others_have_heard_of(self, feeds: Feeds, source: Source) -> None:
        source.piece = 50_000
        source.prints(bytes(KEPT_BYTES * 3))
        slow = Reader(feeds, source)
        await slow.next()
        ahead = Reader(feeds, source, start=KEPT_BYTES * 3)
        (task,) = await waiting(ahead)
        source.prints(b"new")
        await task
        assert ahead.data == b"new"
        await slow.until(len(source.data))
        assert slow.data == source.data
        tasks = await waiting(slow, ahead)
        assert (source.open, len(feeds)) == (1, 1)
        source.prints(b"er")
        await asyncio.gather(*tasks)
        assert ahead.data == b"newer"
        await slow.close()
        await ahead.close()

    async def test_the_last_to_leave_closes_the_stream(self, feeds: Feeds, source: Source) -> None:
        one, other = Reader(feeds, source), Reader(feeds, source)
        source.prints(b"x")
        await one.next()
        await other.next()
        await one.close()
        assert source.open == 1
        await other.close()
        assert (source.open, len(feeds)) == (0, 0)

    async def test_leaving_while_waiting(self, feeds: Feeds, source: Source) -> None:
        reader = Reader(feeds, source)
        (task,) = await waiting(reader)
        task.cancel()
        await asyncio.wait((task,))
        assert (source.open, len(feeds)) == (0, 0)


class TestTruncation:
    async def test_what_the_host_dropped_is_stated_to_each(
        self, feeds: Feeds, source: Source
    ) -> None:
        source.prints(b"0123456789")
        source.kept_from = 6
        readers = [Reader(feeds, source, start) for start in (0, 3, 6, 8)]
        for reader in readers:
            await reader.next()
        assert [reader.gaps for reader in readers] == [[(0, 6)], [(3, 3)], [], []]
        assert [reader.data for reader in readers] == [b"6789", b"6789", b"6789", b"89"]
        assert source.begun == [0]
        for reader in readers:
            await reader.close()

    async def test_a_slow_reader_is_told_what_it_missed(self, feeds: Feeds, source: Source) -> None:
        source.piece = 50_000
        slow, fast = Reader(feeds, source), Reader(feeds, source)
        source.prints(b"abc")
        await slow.next()
        source.prints(bytes(KEPT_BYTES * 3))
        await fast.until(len(source.data))
        source.kept_from = KEPT_BYTES * 2
        source.ends()
        await slow.to_end()
        assert slow.gaps == [(3, KEPT_BYTES * 2 - 3)]
        assert len(slow.data) == 3 + len(source.data) - KEPT_BYTES * 2
        await fast.to_end()
        assert fast.gaps == []

    async def test_a_gap_with_nothing_after_it(self, feeds: Feeds, source: Source) -> None:
        source.prints(b"0123")
        source.kept_from = 4
        source.ends()
        readers = [Reader(feeds, source), Reader(feeds, source, 2)]
        for reader in readers:
            await reader.to_end()
        assert [reader.gaps for reader in readers] == [[(0, 4)], [(2, 2)]]


class TestBreaks:
    async def test_each_reader_has_all_that_came_and_then_the_error(
        self, feeds: Feeds, source: Source
    ) -> None:
        one, other = Reader(feeds, source), Reader(feeds, source)
        source.prints(b"a")
        await one.next()
        await other.next()
        source.prints(b"bc")
        await one.next()
        (task,) = await waiting(one)
        source.breaks(HostUnavailable("it is gone"))
        with pytest.raises(HostUnavailable, match="it is gone"):
            await task
        await other.next()
        assert other.data == b"abc"
        with pytest.raises(HostUnavailable, match="it is gone"):
            await other.next()
        # Whoever comes back has a stream of its own again.
        source.breaks(None)
        source.prints(b"def")
        again = Reader(feeds, source, start=3)
        await again.next()
        assert again.data == b"def"
        assert source.begun == [0, 3]
        await again.close()

    async def test_the_refusal_of_one_offset_is_no_matter_to_others(
        self, feeds: Feeds, source: Source
    ) -> None:
        good = Reader(feeds, source)
        source.prints(b"abc")
        await good.next()

        async def refused(_: int) -> AsyncIterator[OutputPiece | OutputEnd]:
            raise InvalidRequest("beyond the end")
            yield

        bad = feeds.follow(NAME, 99, refused, 30)
        with pytest.raises(InvalidRequest, match="beyond the end"):
            await anext(bad)
        source.prints(b"d")
        await good.next()
        assert good.data == b"abcd"
        await good.close()

    async def test_a_stream_that_just_stops_has_not_ended(self, feeds: Feeds) -> None:
        async def stops(_: int) -> AsyncIterator[OutputPiece | OutputEnd]:
            yield OutputPiece(offset=0, data=b"half")

        items = feeds.follow(NAME, 0, stops, 30)
        assert isinstance(await anext(items), list)
        with pytest.raises(HostUnavailable):
            await anext(items)

    async def test_one_that_comes_after_the_end_reads_anew(
        self, feeds: Feeds, source: Source
    ) -> None:
        source.prints(b"abc")
        source.ends()
        first = Reader(feeds, source)
        await first.until(3)
        for _ in range(10):
            await asyncio.sleep(0)
        late = Reader(feeds, source)
        await late.to_end()
        await first.to_end()
        assert first.data == late.data == b"abc"


class TestChance:
    async def test_readers_of_every_pace(
        self, feeds: Feeds, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They come, sleep, break off and come again, while the oldest bytes are dropped."""
        kept = 30_000
        monkeypatch.setattr("runtools.platform.api.processes.feeds.KEPT_BYTES", kept)
        monkeypatch.setattr("runtools.platform.api.processes.feeds._AHEAD_BYTES", kept // 2)
        print(f"RT_TEST_SEED={SEED}")  # noqa: T201
        chance = random.Random(SEED)
        whole = chance.randbytes(kept * 10)

        async def printer() -> None:
            while len(source.data) < len(whole):
                source.piece = chance.choice((100, 700, 5000))
                at = len(source.data)
                source.prints(whole[at : at + chance.randrange(1, 10_000)])
                if chance.random() < 0.2:
                    source.kept_from = max(source.kept_from, len(source.data) - kept * 2)
                await asyncio.sleep(chance.random() * 0.01)
            source.ends()

        async def reads(pace: float) -> None:
            at, end = chance.randrange(len(source.data) + 1), None
            while end is None:
                reader = Reader(feeds, source, at)
                for _ in range(chance.randrange(1, 50)):
                    await reader.next()
                    if reader.end is not None:
                        break
                    if chance.random() < pace:
                        await asyncio.sleep(chance.random() * 0.02)
                got, seen = b"", 0
                for gap, count in [*reader.gaps, (reader.at, 0)]:
                    there = gap - at - len(got)
                    got += reader.data[seen : seen + there] + whole[gap : gap + count]
                    seen += there
                assert got == whole[at : reader.at]
                at, end = reader.at, reader.end
                await reader.close()
            assert end == len(whole)

        await asyncio.gather(printer(), *(reads(n / 12) for n in range(12)))
