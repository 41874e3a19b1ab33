"""Links that reset a password, in the database: digests of their codes, never those themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Column, Connection, ForeignKey, String, Table, delete, select

from runtools.errors import Conflict
from runtools.platform.api.idempotency.rules import under_way
from runtools.platform.kit.db import Moment, metadata, upsert

resets = Table(
    "resets",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("user_id", String(24), ForeignKey("users.id"), nullable=False, unique=True),
    Column("org_id", String(24), ForeignKey("orgs.id")),
    Column("created_by", String(24), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("op", String(64)),
)


@dataclass(frozen=True, slots=True)
class Reset:
    """A link's record. ``org_id`` is that of the Admin who made it; None: the operator did."""

    digest: str
    user_id: str
    org_id: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime
    op: str | None


def of_person(conn: Connection, user_id: str) -> str | None:
    """The digest of the person's link."""
    found: str | None = conn.scalar(select(resets.c.digest).where(resets.c.user_id == user_id))
    return found


def put(conn: Connection, reset: Reset, before: str | None) -> None:
    """A new link in the place of the person's older one; those whose time is over go.

    Args:
        before: the digest of that; None: there was none.

    Raises:
        Unavailable: the same act has put another there by now.
        Conflict: another act has.
    """
    conn.execute(delete(resets).where(resets.c.expires_at <= reset.created_at))
    row = asdict(reset)
    fresh = upsert(conn, resets).values(**row)
    same = resets.c.digest == before
    kept = fresh.on_conflict_do_update(index_elements=["user_id"], set_=row, where=same)
    if conn.execute(kept.returning(resets.c.digest)).first() is not None:
        return
    # Of two at once one would be told a link that opens nothing.
    op = conn.scalar(select(resets.c.op).where(resets.c.user_id == reset.user_id))
    if op == reset.op:
        raise under_way()
    raise Conflict(
        "another link for that person was made in this moment",
        hint="whoever made it has it; ask again for one in its place, and that one opens nothing",
    )


def find(conn: Connection, digest: str, now: datetime) -> Reset | None:
    """The one of that digest, if its time is not over."""
    mine = (resets.c.digest == digest) & (resets.c.expires_at > now)
    row = conn.execute(select(resets).where(mine)).mappings().first()
    return None if row is None else Reset(**row)


def end(conn: Connection, user_id: str) -> bool:
    """The person's link is good no more; whether there was one."""
    return bool(conn.execute(delete(resets).where(resets.c.user_id == user_id)).rowcount)
