"""Remembered requests in the database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    String,
    Table,
    Text,
    delete,
    select,
)

from runtools.platform.kit.db import Moment, metadata, upsert

requests = Table(
    "idempotency",
    metadata,
    # Of a key's request; a person's has the person's id.
    Column("org_id", String(24), primary_key=True),
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
    conn: Connection, org_id: str, key_digest: str, answered: Remembered, now: datetime
) -> Remembered | None:
    """Remember how the request was answered, or without a status what it has begun.

    Returns what is remembered in its place: the answer of its twin in another process, or another request,
    begun since a twin was refused.
    """
    row = asdict(answered)
    # It is not there any more where a twin was refused.
    fresh = upsert(conn, requests).values(
        org_id=org_id, key_digest=key_digest, created_at=now, **row
    )
    unanswered = (requests.c.op == answered.op) & requests.c.status.is_(None)
    kept = fresh.on_conflict_do_update(
        index_elements=["org_id", "key_digest"], set_=row, where=unanswered
    ).returning(requests.c.op)
    return find(conn, org_id, key_digest) if conn.execute(kept).first() is None else None


def forget(conn: Connection, org_id: str, key_digest: str, op: str) -> Remembered | None:
    """Nothing was done: the next request under the key is a new one.

    Returns what is remembered nevertheless: its twin in another process did it, and was answered.
    """
    of_key = (requests.c.org_id == org_id) & (requests.c.key_digest == key_digest)
    unanswered = (requests.c.op == op) & requests.c.status.is_(None)
    if conn.execute(delete(requests).where(of_key, unanswered)).rowcount == 1:
        return None
    known = find(conn, org_id, key_digest)
    return known if known is not None and known.op == op else None


def expire(conn: Connection, before: datetime) -> int:
    """Forget what is older."""
    done = conn.execute(delete(requests).where(requests.c.created_at < before))
    return int(done.rowcount)
