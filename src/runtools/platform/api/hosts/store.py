"""Hosts in the database: how far their reports have been read, and how they last looked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, String, Table, select, update

from runtools.platform.kit.db import Document, Moment, metadata, upsert

hosts = Table(
    "hosts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("view", Document),
    Column("seen_at", Moment),
)


def enrol(conn: Connection, host_id: str) -> None:
    """Make sure there is a row of the host; several processes may do so at once."""
    conn.execute(upsert(conn, hosts).values(id=host_id, epoch=0, seq=0).on_conflict_do_nothing())


def position(conn: Connection, host_id: str) -> tuple[int, int]:
    """Up to where the host's reports have been read."""
    query = select(hosts.c.epoch, hosts.c.seq).where(hosts.c.id == host_id)
    row = conn.execute(query).first()
    return (0, 0) if row is None else (row.epoch, row.seq)


def advance(conn: Connection, host_id: str, epoch: int, seq: int) -> None:
    """The host's reports have been read up to here."""
    conn.execute(update(hosts).where(hosts.c.id == host_id).values(epoch=epoch, seq=seq))


def seen(conn: Connection, host_id: str, view: Mapping[str, Any], now: datetime) -> None:
    """How the host looks now."""
    conn.execute(update(hosts).where(hosts.c.id == host_id).values(view=dict(view), seen_at=now))


def views(conn: Connection) -> dict[str, dict[str, Any]]:
    """How the hosts last looked, those that were ever seen."""
    rows = conn.execute(select(hosts.c.id, hosts.c.view).where(hosts.c.view.is_not(None)))
    return {row.id: row.view for row in rows}
