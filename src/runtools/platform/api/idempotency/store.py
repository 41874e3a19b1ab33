"""Remembered requests in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    delete,
    select,
    update,
)

from runtools.platform.kit.db import Moment, metadata, upsert

requests = Table(
    "idempotency",
    metadata,
    Column("org_id", String(24), ForeignKey("orgs.id"), primary_key=True),
    Column("key_digest", String(64), primary_key=True),
    Column("request_digest", String(64), nullable=False),
    Column("op", String(64), nullable=False),
    Column("status", Integer),
    Column("data", Text),
    Column("created_at", Moment, nullable=False),
    Index(None, "created_at"),
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """A request seen before. ``status`` is None until it has been answered with success.

    ``data`` without a status is what it has begun.
    """

    request_digest: str
    op: str
    status: int | None
    data: str | None


def find(conn: Connection, org_id: str, key_digest: str) -> Remembered | None:
    """What is remembered under the key."""
    query = select(
        requests.c.request_digest, requests.c.op, requests.c.status, requests.c.data
    ).where(requests.c.org_id == org_id, requests.c.key_digest == key_digest)
    row = conn.execute(query).first()
    return None if row is None else Remembered(*row)


def begin(
    conn: Connection, org_id: str, key_digest: str, request_digest: str, op: str, now: datetime
) -> Remembered:
    """Remember a request, unless one is remembered under the key already; returns which it is."""
    conn.execute(
        upsert(conn, requests)
        .values(
            org_id=org_id,
            key_digest=key_digest,
            request_digest=request_digest,
            op=op,
            created_at=now,
        )
        .on_conflict_do_nothing()
    )
    return find(conn, org_id, key_digest) or Remembered(request_digest, op, None, None)


def answer(
    conn: Connection,
    org_id: str,
    key_digest: str,
    status: int | None,
    data: str | None,
    request_digest: str,
) -> None:
    """Remember how the request was answered, or without a status what it has begun."""
    conn.execute(
        update(requests)
        .where(requests.c.org_id == org_id, requests.c.key_digest == key_digest)
        .values(status=status, data=data, request_digest=request_digest)
    )


def forget(conn: Connection, org_id: str, key_digest: str) -> None:
    """Nothing was done: the next request under the key is a new one."""
    conn.execute(
        delete(requests).where(requests.c.org_id == org_id, requests.c.key_digest == key_digest)
    )


def expire(conn: Connection, before: datetime) -> int:
    """Forget what is older."""
    done = conn.execute(delete(requests).where(requests.c.created_at < before))
    return int(done.rowcount)
