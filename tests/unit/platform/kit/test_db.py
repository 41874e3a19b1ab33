"""The database: transactions as functions, on both engines."""

from __future__ import annotations

import asyncio
import stat
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, Integer, MetaData, Table, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from runtools.errors import InvalidRequest, Unavailable
from runtools.platform.kit.db import Database, Document, Moment, along, at_end, micros, moment
from runtools.testing import postgres

_META = MetaData()
_THINGS = Table(
    "things",
    _META,
    Column("id", Integer, primary_key=True),
    Column("at", Moment),
    Column("body", Document),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    """A server."""
    with postgres.cluster() as server:
        yield server


@pytest_asyncio.fixture(params=postgres.ENGINES)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with one table."""
    url = f"sqlite:///{tmp_path}/db/x.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("cluster")
        url = server.url(server.create())
    made = Database(url)
    await made.write(_META.create_all)
    yield made
    await made.close()


def add(conn: Connection, number: int) -> None:
    """One row."""
    conn.execute(insert(_THINGS).values(id=number))


def count(conn: Connection) -> int:
    """How many rows there are."""
    return len(conn.execute(select(_THINGS.c.id)).all())


class TestWrite:
    async def test_it_is_committed_as_a_whole_or_not_at_all(self, db: Database) -> None:
        def half(conn: Connection) -> None:
            add(conn, 1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await db.write(half)
        assert await db.read(count) == 0
        await db.write(add, 1)
        assert await db.read(count) == 1

    async def test_many_writers_lose_nothing(self, db: Database) -> None:
        await db.write(add, 0)

        def more(conn: Connection) -> None:
            body = conn.scalar(select(_THINGS.c.body).with_for_update()) or {"n": 0}
            conn.execute(update(_THINGS).values(body={"n": body["n"] + 1}))

        await asyncio.gather(*(db.write(more) for _ in range(40)))
        assert await db.read(lambda conn: conn.scalar(select(_THINGS.c.body))) == {"n": 40}

    async def test_readers_go_on_meanwhile(self, db: Database) -> None:
        await db.write(add, 1)
        reading = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(conn: Connection) -> None:
            add(conn, 2)
            loop.call_soon_threadsafe(reading.set)
            asyncio.run_coroutine_threadsafe(done.wait(), loop).result(10)

        done = asyncio.Event()
        writing = asyncio.create_task(db.write(slow))
        await reading.wait()
        assert await db.read(count) == 1
        done.set()
        await writing
        assert await db.read(count) == 2

    async def test_a_cancelled_caller_leaves_a_whole_transaction(self, db: Database) -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def both(conn: Connection) -> None:
            add(conn, 1)
            loop.call_soon_threadsafe(begun.set)
            add(conn, 2)

        task = asyncio.create_task(db.write(both))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await db.write(add, 3)
        assert await db.read(count) == 3


class TestColumns:
    async def test_moments_keep_their_microsecond(self, db: Database) -> None:
        at = datetime(2031, 5, 6, 7, 8, 9, 123457, UTC)
        await db.write(lambda conn: conn.execute(insert(_THINGS).values(id=1, at=at)))
        assert await db.read(lambda conn: conn.scalar(select(_THINGS.c.at))) == at

    async def test_documents_and_none(self, db: Database) -> None:
        body = {"a": ["ä", None, 1.5, {"b": True}]}
        await db.write(lambda conn: conn.execute(insert(_THINGS).values(id=1, body=body)))
        await db.write(lambda conn: conn.execute(insert(_THINGS).values(id=2, body=None)))
        query = select(_THINGS.c.body).order_by(_THINGS.c.id)
        assert await db.read(lambda conn: list(conn.scalars(query))) == [body, None]
        empty = select(_THINGS.c.id).where(_THINGS.c.body.is_(None))
        assert await db.read(lambda conn: list(conn.scalars(empty))) == [2]

    @given(st.datetimes(min_value=datetime(1900, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)))  # noqa: DTZ001
    def test_micros_and_back(self, at: datetime) -> None:
        assert moment(micros(at)) == at
        assert micros(at + timedelta(microseconds=1)) == micros(at) + 1


class TestErrors:
    async def test_they_name_nothing_that_was_bound(
        self, db: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        private = token_hex()

        def wrong(conn: Connection) -> None:
            ask = text("SELECT id FROM no_such_table WHERE id = :value")
            conn.execute(ask, {"value": private})

        for act in (db.read, db.write):
            with pytest.raises(
                (Unavailable, DBAPIError), match=r"database|no_such_table"
            ) as caught:
                await act(wrong)
            told = "".join(traceback.format_exception(caught.value)) + caplog.text
            assert "no_such_table" in told
            assert private not in told


class TestFile:
    async def test_nobody_else_reads_it(self, tmp_path: Path) -> None:
        db = Database(f"sqlite:///{tmp_path}/deep/x.db")
        await db.write(_META.create_all)
        modes = [
            stat.S_IMODE(path.stat().st_mode)
            for path in (tmp_path / "deep", tmp_path / "deep" / "x.db")
        ]
        await db.close()
        assert modes == [0o700, 0o600]

    async def test_it_is_in_wal_mode(self, tmp_path: Path) -> None:
        db = Database(f"sqlite:///{tmp_path}/x.db")
        mode = await db.read(lambda conn: conn.scalar(text("PRAGMA journal_mode")))
        keys = await db.write(lambda conn: conn.scalar(text("PRAGMA foreign_keys")))
        await db.close()
        assert (mode, keys) == ("wal", 1)

    @pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite://", "oracle://x"])
    def test_other_urls_are_refused(self, url: str) -> None:
        with pytest.raises(InvalidRequest, match="database_url"):
            Database(url)


class TestAtEnd:
    async def test_it_comes_last_and_once(self, db: Database) -> None:
        order: list[str] = []

        def last(conn: Connection) -> None:
            order.append(f"last, of {count(conn)}")

        def act(conn: Connection) -> None:
            for number in (1, 2):
                at_end(conn, last)
                add(conn, number)
                order.append("act")

        await db.write(act)
        assert order == ["act", "act", "last, of 2"]

    async def test_it_is_nothing_of_another_transaction(self, db: Database) -> None:
        done: list[int] = []

        def fails(conn: Connection) -> None:
            at_end(conn, lambda _: done.append(1))
            raise ZeroDivisionError

        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                await db.write(fails)
        await asyncio.gather(*(db.write(add, number) for number in range(20)))
        assert done == []

    async def test_with_it_fails_all(self, db: Database) -> None:
        def last(_: Connection) -> None:
            raise ZeroDivisionError

        def act(conn: Connection) -> None:
            at_end(conn, last)
            add(conn, 1)

        with pytest.raises(ZeroDivisionError):
            await db.write(act)
        assert await db.read(count) == 0


class TestAlong:
    async def test_what_follows_is_done_once_it_is_committed(self, db: Database) -> None:
        noted: list[str] = []

        def also(conn: Connection) -> Callable[[], None] | None:
            seen = count(conn)
            return None if seen == 1 else lambda: noted.append(f"of {seen}")

        def fails(_: Connection) -> None:
            raise ZeroDivisionError

        def act(conn: Connection) -> None:
            at_end(conn, fails)
            add(conn, 3)

        with along(also):
            await db.write(add, 1)
            await db.write(add, 2)
            with pytest.raises(ZeroDivisionError):
                await db.write(act)
        await db.write(add, 4)
        assert noted == ["of 2"]
