"""The database: transactions as plain functions, run in threads; alike on SQLite and PostgreSQL.

A transaction is a function of a connection. It cannot await, so nothing slow ever happens inside one, and
it costs the event loop one hop to a thread, where an asynchronous driver would cost several for every
statement (measured: a read 0.15 against 0.6 ms, four writes 0.6 against 2.7 ms).

Reads run in autocommit, each statement for itself. Writes run in one transaction; on SQLite one thread
does all of them, so that writers wait in a queue of ours and never meet ``database is locked``, and a
transaction begins IMMEDIATE, so that it never fails half-way. On PostgreSQL writers run side by side, and
what must not race takes row locks or compares and sets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    Dialect,
    Engine,
    MetaData,
    Table,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import Insert as PgInsert
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

from runtools.errors import InvalidRequest, Unavailable
from runtools.platform.kit.clock import SystemClock

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Transaction = Connection
"""What a store's functions are given; those who hand it through need not know what it is."""

# Connection is handed on so that who passes one along needs to know nothing of SQL.
__all__ = [
    "UPSERTS",
    "Connection",
    "Database",
    "Document",
    "Moment",
    "Upsert",
    "along",
    "at_end",
    "lock_start",
    "metadata",
    "micros",
    "moment",
    "shared_time",
    "upsert",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_READERS = 4
_WRITERS = 8
_WAL_SECONDS, _WAL_PAUSE = 10.0, 0.02
_FRESH_SECONDS = 1.0
_AT_END = "runtools.at_end"
Along = Callable[[Connection], Callable[[], None] | None]
_ALONG: ContextVar[Along | None] = ContextVar("along", default=None)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of the platform registers here; the store that owns a table defines it."""


def micros(at: datetime) -> int:
    """A point in time as microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def moment(count: int) -> datetime:
    """The point in time that `micros` made a number of."""
    return _EPOCH + count * _MICROSECOND


class Moment(TypeDecorator[datetime]):
    """A point in time, kept as microseconds since 1970 in UTC: exact, sortable, alike everywhere."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the column; a time without a zone is a mistake of ours."""
        return None if value is None else micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """From the column."""
        return None if value is None else moment(value)


Document = JSON(none_as_null=True)
"""A JSON value in a column; None is SQL's NULL."""


class Database:
    """The two engines of one database, and the threads that use them."""

    def __init__(self, url: str) -> None:
        target = _normal(url)
        self.sqlite = target.get_backend_name() == "sqlite"
        writers = 1 if self.sqlite else _WRITERS
        if self.sqlite:
            _private(target.database)
        # An error of the database names its statement and never what was bound: some of that is private.
        shared: dict[str, Any] = {"max_overflow": 0, "hide_parameters": True}
        self._writer = create_engine(target, pool_size=writers, **shared)
        self._reader = create_engine(
            target,
            pool_size=_READERS,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            **shared,
        )
        if self.sqlite:
            for engine in (self._writer, self._reader):
                event.listen(engine, "connect", _sqlite_connect)
            event.listen(self._writer, "begin", _begin_immediate)
        else:
            for engine in (self._writer, self._reader):
                _look_when_idle(engine)
        self._readers = ThreadPoolExecutor(_READERS, "db-read")
        self._writers = ThreadPoolExecutor(writers, "db-write")

    async def read(self, ask: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
        """What the function finds; each of its statements sees what is committed when it starts."""

        def asked() -> T:
            with _there(), self._reader.connect() as conn:
                return ask(conn, *args)

        return await asyncio.get_running_loop().run_in_executor(self._readers, asked)

    async def write(self, act: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
        """What the function returns, once all it wrote is committed; nothing is, when it raises.

        A caller that is cancelled meanwhile does not stop it: it is committed or not as a whole.
        """
        also = _ALONG.get()

        def done() -> T:
            committed = None
            with _there(), self._writer.begin() as conn:
                conn.info.pop(_AT_END, None)  # of one that failed before its end
                result = act(conn, *args)
                if also is not None:
                    committed = also(conn)
                for last in conn.info.pop(_AT_END, ()):
                    last(conn)
            if committed is not None:
                committed()
            return result

        return await asyncio.get_running_loop().run_in_executor(self._writers, done)

    async def close(self) -> None:
        """Let what runs end, then let go of every connection."""
        for threads in (self._readers, self._writers):
            await asyncio.to_thread(threads.shutdown)
        self._reader.dispose()
        self._writer.dispose()


def at_end(conn: Connection, act: Callable[[Connection], None]) -> None:
    """Do it once, as the last thing of the transaction that is under way (`Database.write`).

    It is for a row that many kinds of transactions change: who has it locked waits for nothing else any
    more, so no two of them can wait for each other.
    """
    conn.info.setdefault(_AT_END, {})[act] = None


@contextmanager
def along(act: Along) -> Iterator[None]:
    """Do this in every transaction that the body begins, too, once the rest of it is done.

    What it returns is done when that is committed, and never of one that is not.
    So do the tasks that the body begins, for as long as they live.
    """
    token = _ALONG.set(act)
    try:
        yield
    finally:
        _ALONG.reset(token)


def shared_time(conn: Connection) -> datetime:
    """The time by the one clock that all share who use the database, on whichever machine they are."""
    if conn.dialect.name == "sqlite":
        return SystemClock().now()  # its file is on this machine
    told: datetime = conn.execute(select(func.clock_timestamp())).scalar_one()
    return told.astimezone(UTC)


Upsert = PgInsert | SqliteInsert
"""An insert that says what is done where the row is there already (``on_conflict_…``)."""

UPSERTS: Mapping[str, Callable[[Table], Upsert]] = {
    "postgresql": pg_insert,
    "sqlite": sqlite_insert,
}
"""How one begins, by the name of the database's dialect."""


def upsert(conn: Connection, table: Table) -> Upsert:
    """One into a table, in the words of the connection's database."""
    return UPSERTS[conn.dialect.name](table)


@contextmanager
def _there() -> Iterator[None]:
    """Say it in words of ours when the database is away, or takes nothing more.

    Raises:
        Unavailable: it does not answer, is locked by somebody else, or its disk is full.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as exc:
        log.warning("the database: %s", str(exc).partition("\n")[0])  # and not the statement
        raise Unavailable(
            "the platform's database does not answer, or takes nothing more",
            hint="ask again in a moment; its operator finds the reason in the log of the api",
        ) from exc


def _look_when_idle(engine: Engine) -> None:
    """Ask a server's connection whether it is still there, if nobody has used it for a moment.

    Every time would be a second question beside each: a read would take half as long again.
    """

    def used(_dbapi: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["used"] = monotonic()

    def taken(dbapi: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: Any) -> None:
        if monotonic() - entry.info.get("used", 0.0) < _FRESH_SECONDS:
            return
        try:
            engine.dialect.do_ping(dbapi)
        except engine.dialect.loaded_dbapi.Error as exc:
            raise InvalidatePoolError from exc  # the others are as old: the pool makes new ones

    event.listen(engine, "connect", used)
    event.listen(engine, "checkin", used)
    event.listen(engine, "checkout", taken)


def lock_start(conn: Connection) -> None:
    """Let only one process at a time do what a platform starts with: until the transaction's end.

    Of two that start together on one database, the second finds what the first has made.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(7700)"))


def _normal(url: str) -> URL:
    try:
        target = make_url(url)
    except Exception as exc:
        raise InvalidRequest(
            "setting database_url is not a database URL",
            hint="for example postgresql://user@host/runtools",
        ) from exc
    drivers = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
    backend = target.get_backend_name()
    if backend not in drivers or (backend == "sqlite" and not target.database):
        raise InvalidRequest(
            f"setting database_url names {backend}",
            hint="SQLite in a file and PostgreSQL are supported",
        )
    return target.set(drivername=drivers[backend])


def _private(database: str | None) -> None:
    """The file holds environments and hashes: nobody but its owner reads it."""
    assert database  # noqa: S101 - _normal has refused a SQLite database without a file
    file = Path(database)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _sqlite_connect(dbapi: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    dbapi.isolation_level = None  # transactions begin where we say so, not where the driver guesses
    cursor = dbapi.cursor()
    for pragma in (
        "busy_timeout=10000",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    _use_wal(cursor)
    cursor.close()


def _use_wal(cursor: DBAPICursor) -> None:
    """Switch the file to WAL, once in its life; SQLite does not wait for others by itself then."""
    deadline = monotonic() + _WAL_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if monotonic() > deadline:
                raise
            sleep(_WAL_PAUSE)
        else:
            return


def _begin_immediate(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE")
