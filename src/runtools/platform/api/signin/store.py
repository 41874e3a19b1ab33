"""Failed attempts in the database, by digests of what they were made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Column, Connection, Index, Integer, String, Table, delete, select, update

from runtools.platform.api.signin import rules
from runtools.platform.kit.db import Moment, metadata, upsert

attempts = Table(
    "signin_attempts",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("until", Moment, nullable=False),
    Index(None, "last_at"),
)


def begin(conn: Connection, kinds: Mapping[str, str], now: datetime) -> datetime | None:
    """Count an attempt as a failure until it is known to be none.

    So attempts side by side are counted, too. Returns the time before which none is made: then it was
    not counted. ``kinds`` says for what each digest is counted.
    """
    conn.execute(delete(attempts).where(attempts.c.last_at < now - rules.FORGOTTEN_AFTER))
    for digest in sorted(kinds):
        first = upsert(conn, attempts).values(digest=digest, failures=0, last_at=now, until=now)
        conn.execute(first.on_conflict_do_nothing())
    query = select(attempts).where(attempts.c.digest.in_(kinds)).order_by(attempts.c.digest)
    rows = conn.execute(query.with_for_update()).all()
    latest: datetime = max(row.until for row in rows)
    if latest > now:
        return latest
    for row in rows:
        failures = row.failures + 1
        until = now + rules.pause(kinds[row.digest], failures)
        conn.execute(
            update(attempts)
            .where(attempts.c.digest == row.digest)
            .values(failures=failures, last_at=now, until=until)
        )
    return None


def succeeded(conn: Connection, own: Sequence[str], shared: Sequence[str]) -> None:
    """It was none: forget what was counted for the first, and count one less for the others."""
    # In one order, as who counts one does it: of two at once, neither waits for the other's.
    both = attempts.c.digest.in_({*own, *shared})
    held = select(attempts.c.digest).where(both).order_by(attempts.c.digest)
    conn.execute(held.with_for_update()).all()
    conn.execute(delete(attempts).where(attempts.c.digest.in_(own)))
    less = (attempts.c.digest.in_(shared)) & (attempts.c.failures > 0)
    conn.execute(
        update(attempts)
        .where(less)
        .values(failures=attempts.c.failures - 1, until=attempts.c.last_at)
    )
