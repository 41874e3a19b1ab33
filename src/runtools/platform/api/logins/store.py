"""Logins of command lines in the database, until they are approved and fetched."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from runtools.platform.kit.db import Moment, metadata

logins = Table(
    "logins",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("challenge", String(64), nullable=False),
    Column("code_digest", String(64), nullable=False),
    Column("machine", String(100), nullable=False),
    Column("source", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("user_id", String(24), ForeignKey("users.id")),
    Column("org_id", String(24), ForeignKey("orgs.id")),
    Column("salt", String(64)),
    Column("session_id", String(24)),
    Index(None, "code_digest", unique=True),
    Index(None, "expires_at"),
)


@dataclass(frozen=True, slots=True)
class Login:
    """A login's record.

    Attributes:
        challenge: the SHA-256 of what only the command line knows.
        user_id: who approved it; None: nobody yet.
        salt: what the session's secret is made of beside the verifier; None: nobody has fetched it.
        session_id: which session that is.
    """

    id: str
    challenge: str
    code_digest: str
    machine: str
    source: str
    created_at: datetime
    expires_at: datetime
    user_id: str | None = None
    org_id: str | None = None
    salt: str | None = None
    session_id: str | None = None


def add(conn: Connection, login: Login) -> None:
    """Keep a new one; those whose time is over go."""
    conn.execute(delete(logins).where(logins.c.expires_at <= login.created_at))
    conn.execute(insert(logins).values(**asdict(login)))


def waiting(conn: Connection, code_digest: str, now: datetime) -> Login | None:
    """The one of that code, if it waits for approval."""
    mine = (logins.c.code_digest == code_digest) & logins.c.user_id.is_(None)
    query = select(logins).where(mine, logins.c.expires_at > now)
    row = conn.execute(query).mappings().first()
    return None if row is None else Login(**row)


def approve(
    conn: Connection, code_digest: str, user_id: str, org_id: str | None, now: datetime
) -> Login | None:
    """Let it in as that person; None: it does not wait (any more)."""
    mine = (logins.c.code_digest == code_digest) & logins.c.user_id.is_(None)
    done = (
        update(logins)
        .where(mine, logins.c.expires_at > now)
        .values(user_id=user_id, org_id=org_id)
        .returning(logins)
    )
    row = conn.execute(done).mappings().first()
    return None if row is None else Login(**row)


def refuse(conn: Connection, code_digest: str) -> None:
    """It is never let in."""
    mine = (logins.c.code_digest == code_digest) & logins.c.user_id.is_(None)
    conn.execute(delete(logins).where(mine))


def find(conn: Connection, login_id: str, challenge: str, now: datetime) -> Login | None:
    """The one of that id for who knows what the challenge was made of."""
    mine = (logins.c.id == login_id) & (logins.c.challenge == challenge)
    query = select(logins).where(mine, logins.c.expires_at > now)
    row = conn.execute(query).mappings().first()
    return None if row is None else Login(**row)


def fetch(conn: Connection, login_id: str, salt: str, session_id: str) -> bool:
    """Note which session it is for; whether this call did: another one may have been first."""
    mine = (logins.c.id == login_id) & logins.c.salt.is_(None)
    done = update(logins).where(mine).values(salt=salt, session_id=session_id)
    return bool(conn.execute(done).rowcount)


def end_approved(conn: Connection, user_id: str) -> None:
    """Nobody fetches any more what the person has let in."""
    conn.execute(delete(logins).where(logins.c.user_id == user_id))
