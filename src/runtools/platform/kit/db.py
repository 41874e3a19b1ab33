"""The database: one engine for reading, one for writing, alike on SQLite and PostgreSQL.

Reads run in autocommit, each statement for itself. Writes run in one transaction per `Database.write`;
on SQLite there is one writing connection, so that writers wait for their turn in a queue of ours and
never meet ``database is locked``; a transaction there begins IMMEDIATE, so that it never fails half-way.
On PostgreSQL writers run side by side, and what must not race takes row locks or compares and sets.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, BigInteger, Connection, Dialect, MetaData, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

from runtools.errors import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_READERS = 4
_WRITERS = 8

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
    """The two engines of one database."""

    def __init__(self, url: str) -> None:
        target = _normal(url)
        self.sqlite = target.get_backend_name() == "sqlite"
        sizes: dict[str, Any] = {"pool_size": _WRITERS, "max_overflow": 0, "pool_pre_ping": True}
        if self.sqlite:
            _private(target.database)
            sizes = {"pool_size": 1, "max_overflow": 0}
        self._writer = create_async_engine(target, pool_timeout=60, **sizes)
        self._reader = create_async_engine(
            target,
            isolation_level="AUTOCOMMIT",
            pool_size=_READERS,
            max_overflow=_READERS,
            pool_reset_on_return=None,
            pool_pre_ping=not self.sqlite,
        )
        if self.sqlite:
            for engine in (self._writer, self._reader):
                event.listen(engine.sync_engine, "connect", _sqlite_connect)
            event.listen(self._writer.sync_engine, "begin", _begin_immediate)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that only reads; each statement sees what is committed when it starts."""
        async with self._reader.connect() as conn:
            yield conn

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end, rolled back when the block raises."""
        async with self._writer.begin() as conn:
            yield conn

    async def close(self) -> None:
        """Let go of every connection."""
        await self._reader.dispose()
        await self._writer.dispose()

    @property
    def engines(self) -> tuple[AsyncEngine, AsyncEngine]:
        """Reader and writer, for measuring and tests."""
        return self._reader, self._writer


async def lock_schema(conn: AsyncConnection) -> None:
    """Let only one process at a time change the schema: until the transaction's end."""
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SELECT pg_advisory_xact_lock(7700)"))


def _normal(url: str) -> URL:
    try:
        target = make_url(url)
    except Exception as exc:
        raise InvalidRequest(
            "setting database_url is not a database URL",
            hint="for example postgresql://user@host/runtools",
        ) from exc
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
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
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "busy_timeout=10000",
        "foreign_keys=ON",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE")
