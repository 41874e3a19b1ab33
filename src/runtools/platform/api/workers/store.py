"""Which workers are connected, to whichever api process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Column, Connection, Index, String, Table, delete, select, update

from runtools.platform.kit.db import Moment, metadata, upsert

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("seen_at", Moment, nullable=False),
    Index(None, "seen_at"),
)


def heard(conn: Connection, worker_id: str) -> datetime | None:
    """When a worker was last heard of, if it is known here."""
    at: datetime | None = conn.scalar(select(workers.c.seen_at).where(workers.c.id == worker_id))
    return at


def came(conn: Connection, worker_id: str, now: datetime) -> None:
    """A worker has connected."""
    row = upsert(conn, workers).values(id=worker_id, seen_at=now)
    conn.execute(row.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now}))


def seen(conn: Connection, worker_ids: Sequence[str], now: datetime) -> None:
    """Workers are connected still."""
    conn.execute(update(workers).where(workers.c.id.in_(worker_ids)).values(seen_at=now))


def left(conn: Connection, worker_id: str) -> None:
    """A worker has said that it ends."""
    conn.execute(delete(workers).where(workers.c.id == worker_id))


def known(conn: Connection) -> dict[str, datetime]:
    """When each worker was last heard of."""
    rows = conn.execute(select(workers.c.id, workers.c.seen_at))
    return {row.id: row.seen_at for row in rows}


def forget(conn: Connection, before: datetime) -> None:
    """Drop workers that have not been connected since."""
    conn.execute(delete(workers).where(workers.c.seen_at < before))
