"""Sessions in the database: digests of their secrets, never those themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from runtools.platform.api.members.store import members
from runtools.platform.api.users.store import users
from runtools.platform.core import access
from runtools.platform.core.access import Caller
from runtools.platform.kit.db import Moment, metadata

PREFIX = "rt_session_"

Place = Literal["browser", "cli"]

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("user_id", String(24), ForeignKey("users.id"), nullable=False),
    Column("org_id", String(24), ForeignKey("orgs.id")),
    Column("digest", String(64), nullable=False, unique=True),
    Column("place", String(8), nullable=False),
    Column("label", String(200), nullable=False),
    Column("source", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index(None, "user_id"),
    Index(None, "expires_at"),
)

# One statement for however many there are.
_USED = update(sessions).where(sessions.c.id == bindparam("used")).values(seen_at=bindparam("at"))
_IN_ORG = and_(members.c.user_id == sessions.c.user_id, members.c.org_id == sessions.c.org_id)


@dataclass(frozen=True, slots=True)
class Session:
    """A session's record.

    Attributes:
        org_id: the org that it acts in at present, if the person is (still) a member there.
        place: where the person is signed in.
        label: what that calls itself: the browser, or the machine of the command line.
        source: the address that it was made from.
    """

    id: str
    user_id: str
    org_id: str | None
    digest: str
    place: Place
    label: str
    source: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


def caller(conn: Connection, digest: str, idle: timedelta) -> Caller | None:
    """Who has the session of that digest, with the rights of this moment."""
    query = (
        select(
            sessions.c.id,
            sessions.c.user_id,
            sessions.c.digest,
            sessions.c.seen_at,
            sessions.c.expires_at,
            users.c.is_operator,
            members.c.org_id,
            members.c.role,
        )
        .join_from(sessions, users)
        .outerjoin(members, _IN_ORG)
        .where(sessions.c.digest == digest)
    )
    row = conn.execute(query).first()
    if row is None:
        return None
    return Caller(
        kind="session",
        id=row.id,
        digest=row.digest,
        org_id=row.org_id,
        scopes=access.of_person(row.role, operator=row.is_operator),
        expires_at=min(row.expires_at, row.seen_at + idle),
        user_id=row.user_id,
        role=row.role,
    )


def living(conn: Connection, session_id: str, idle: timedelta) -> Caller | None:
    """Who has the session of that id, for who was let in by something that stands for it."""
    digest = conn.scalar(select(sessions.c.digest).where(sessions.c.id == session_id))
    return None if digest is None else caller(conn, digest, idle)


def add(conn: Connection, session: Session) -> None:
    """Keep a new one; those whose time is over go."""
    conn.execute(delete(sessions).where(sessions.c.expires_at <= session.created_at))
    conn.execute(insert(sessions).values(**asdict(session)))


def page(
    conn: Connection,
    user_id: str,
    now: datetime,
    idle: timedelta,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Session]:
    """The person's sessions that are not over, the newest first, from before a place on."""
    alive = (sessions.c.expires_at > now) & (sessions.c.seen_at > now - idle)
    query = select(sessions).where(sessions.c.user_id == user_id, alive)
    if before is not None:
        at, session_id = before
        beside = (sessions.c.created_at == at) & (sessions.c.id < session_id)
        query = query.where(or_(sessions.c.created_at < at, beside))
    query = query.order_by(sessions.c.created_at.desc(), sessions.c.id.desc()).limit(limit)
    return [Session(**row) for row in conn.execute(query).mappings()]


def end(conn: Connection, user_id: str, session_id: str) -> Session | None:
    """End one of the person's sessions; returns what it was."""
    mine = (sessions.c.user_id == user_id) & (sessions.c.id == session_id)
    row = conn.execute(delete(sessions).where(mine).returning(sessions)).mappings().first()
    return None if row is None else Session(**row)


def end_others(conn: Connection, user_id: str, kept: str | None) -> int:
    """End all of the person's sessions but one; returns how many."""
    others = sessions.c.user_id == user_id
    if kept is not None:
        others &= sessions.c.id != kept
    return int(conn.execute(delete(sessions).where(others)).rowcount)


def switch(conn: Connection, session_id: str, org_id: str | None) -> None:
    """Act in another org from now on."""
    conn.execute(update(sessions).where(sessions.c.id == session_id).values(org_id=org_id))


def used(conn: Connection, times: Mapping[str, datetime]) -> None:
    """Note when sessions were last used."""
    if times:
        conn.execute(_USED, [{"used": session_id, "at": at} for session_id, at in times.items()])
