"""API keys in the database: their digests, never themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Integer,
    Row,
    String,
    Table,
    bindparam,
    cast,
    delete,
    or_,
    select,
    true,
    update,
)

from runtools.platform.api.ssh_keys.store import ssh_keys
from runtools.platform.core import access
from runtools.platform.core.access import Caller
from runtools.platform.kit.db import Document, Moment, at_end, metadata, upsert

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("prefix", String(24), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("op", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    Column("revoked_at", Moment),
    Column("scopes", Document, nullable=False, server_default="[]"),
    Column("expires_at", Moment),
    Column("project_id", String(24)),
    Column("created_by", String(24)),
    Index(None, "org_id", "op", unique=True),
    Index(None, "created_by"),
)

# How many transactions have revoked keys: one row, which the schema comes with.
revocations = Table(
    "key_revocations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
)

_LIVING = select(
    api_keys.c.id,
    api_keys.c.org_id,
    api_keys.c.digest,
    api_keys.c.scopes,
    api_keys.c.expires_at,
).where(api_keys.c.revoked_at.is_(None))
_BY_DIGEST = _LIVING.where(api_keys.c.digest == bindparam("digest"))
# One statement for however many there are.
_USED = (
    update(api_keys).where(api_keys.c.id == bindparam("used")).values(last_used_at=bindparam("at"))
)
_MADE = api_keys.alias("made")
_COUNT = select(revocations.c.count)
_COUNT_UP = update(revocations).values(count=revocations.c.count + 1)


@dataclass(frozen=True, slots=True)
class Key:
    """A key's record. ``digest`` is all that is kept of the key itself; ``created_by`` is a user or key."""

    id: str
    org_id: str
    name: str
    prefix: str
    digest: str
    op: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    scopes: list[str] = field(default_factory=list)
    expires_at: datetime | None = None
    project_id: str | None = None
    created_by: str | None = None


def caller(conn: Connection, digest: str) -> Caller | None:
    """Who has the living key of that digest."""
    return _caller(conn.execute(_BY_DIGEST, {"digest": digest}).first())


def living(conn: Connection, key_id: str) -> Caller | None:
    """Who has the living key of that id, for who was let in by something that stands for it."""
    return _caller(conn.execute(_LIVING.where(api_keys.c.id == key_id)).first())


def _caller(row: Row[*tuple[Any, ...]] | None) -> Caller | None:
    if row is None:
        return None
    return Caller(
        kind="key",
        id=row.id,
        digest=row.digest,
        org_id=row.org_id,
        scopes=access.of_key(row.scopes),
        expires_at=row.expires_at,
    )


def revoked(conn: Connection) -> int:
    """A number that is another one as soon as any key of the platform has been revoked."""
    return int(conn.execute(_COUNT).scalar_one())


def add_once(conn: Connection, key: Key) -> Key:
    """Keep a new key, unless the same act has made one before; returns the one that is kept."""
    made = made_by_act(conn, key.org_id, key.op)
    if made is not None:
        return made
    # Another process may be at the same act in this moment: whoever is second waits, and finds its key.
    once = upsert(conn, api_keys).values(**asdict(key))
    conn.execute(once.on_conflict_do_nothing(index_elements=["org_id", "op"]))
    return made_by_act(conn, key.org_id, key.op) or key


def made_by_act(conn: Connection, org_id: str, op: str) -> Key | None:
    """The key that an act has made."""
    query = select(api_keys).where(api_keys.c.org_id == org_id, api_keys.c.op == op)
    row = conn.execute(query).mappings().first()
    return None if row is None else Key(**row)


def page(
    conn: Connection,
    org_id: str,
    project_id: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Key]:
    """The org's keys (those of a project), revoked ones too, newest first, from before a place on."""
    query = select(api_keys).where(api_keys.c.org_id == org_id)
    if project_id is not None:
        query = query.where(api_keys.c.project_id == project_id)
    if before is not None:
        at, key_id = before
        beside = (api_keys.c.created_at == at) & (api_keys.c.id < key_id)
        query = query.where(or_(api_keys.c.created_at < at, beside))
    query = query.order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc()).limit(limit)
    return [Key(**row) for row in conn.execute(query).mappings()]


def find(conn: Connection, org_id: str, key_id: str) -> Key | None:
    """The org's key of that id."""
    mine = (api_keys.c.org_id == org_id) & (api_keys.c.id == key_id)
    row = conn.execute(select(api_keys).where(mine)).mappings().first()
    return None if row is None else Key(**row)


def held(conn: Connection, org_id: str, key_id: str) -> bool:
    """Whether the org's key is not revoked; nor is it before the transaction's end."""
    mine = (api_keys.c.org_id == org_id) & (api_keys.c.id == key_id)
    query = select(api_keys.c.id).where(mine, api_keys.c.revoked_at.is_(None))
    return conn.execute(query.with_for_update(read=True)).first() is not None


def revoke(conn: Connection, org_id: str, key_id: str, now: datetime) -> Key | None:
    """Close the key's door; a revoked one keeps the time of its first revocation."""
    close(conn, org_id, key_id, now)
    return find(conn, org_id, key_id)


def close(conn: Connection, org_id: str, key_id: str, now: datetime) -> bool:
    """Close the key's door; returns whether it was open until now."""
    mine = (api_keys.c.org_id == org_id) & (api_keys.c.id == key_id)
    closed = update(api_keys).where(mine, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    return _ended(conn, conn.execute(closed).rowcount) == 1


def drop(conn: Connection, before: datetime) -> None:
    """Drop the keys that were revoked, or ran out, before.

    Not those that made keys, or registered SSH keys, which are still there: by them it is known whose these
    are.
    """
    over = or_(api_keys.c.revoked_at < before, api_keys.c.expires_at < before)
    makers = select(_MADE.c.created_by).where(_MADE.c.created_by.is_not(None))
    registrars = select(ssh_keys.c.created_by)
    kept = api_keys.c.id.in_(makers) | api_keys.c.id.in_(registrars)
    gone = delete(api_keys).where(over, ~kept)
    _ended(conn, conn.execute(gone).rowcount)


def used(conn: Connection, times: Mapping[str, datetime]) -> None:
    """Note when keys were last used."""
    if times:
        conn.execute(_USED, [{"used": key_id, "at": at} for key_id, at in times.items()])


def made_by(conn: Connection, maker: str) -> list[str]:
    """The ids of the keys that a user or key made, or those did, in every org."""
    return list(conn.scalars(select(_made(maker).c.id)))


def revoke_made_by(conn: Connection, org_id: str, maker: str, now: datetime) -> list[str]:
    """Close the doors of the org's keys that a user or key made, or those did; returns their digests."""
    return _revoke_made(conn, maker, now, api_keys.c.org_id == org_id)


def revoke_all_made_by(
    conn: Connection, user_id: str, now: datetime, noun: str | None = None
) -> list[str]:
    """The same in every org; with a noun only of those whose scopes name it."""
    named = true() if noun is None else cast(api_keys.c.scopes, String).contains(f'"{noun}:')
    return _revoke_made(conn, user_id, now, named)


def has_operator(conn: Connection, now: datetime) -> bool:
    """Whether a living key has the operator's right."""
    living = api_keys.c.revoked_at.is_(None) & or_(
        api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now
    )
    (right,) = access.OPERATOR
    named = cast(api_keys.c.scopes, String).contains(f'"{right}"')
    return conn.scalar(select(api_keys.c.id).where(living, named).limit(1)) is not None


def _made(maker: str) -> CTE:
    """The ids of the keys that a user or key made, or those did."""
    made = select(api_keys.c.id).where(api_keys.c.created_by == maker).cte("made", recursive=True)
    return made.union(select(api_keys.c.id).where(api_keys.c.created_by == made.c.id))


def _revoke_made(
    conn: Connection, maker: str, now: datetime, which: ColumnElement[bool]
) -> list[str]:
    made = _made(maker)
    mine = api_keys.c.id.in_(select(made.c.id)) & api_keys.c.revoked_at.is_(None) & which
    closed = update(api_keys).where(mine).values(revoked_at=now)
    digests = list(conn.scalars(closed.returning(api_keys.c.digest)))
    _ended(conn, len(digests))
    return digests


def _ended(conn: Connection, keys: int) -> int:
    """Have it counted that so many keys let nobody in any more: those who believe them must hear of it."""
    if keys:
        at_end(conn, _count_up)
    return keys


def _count_up(conn: Connection) -> None:
    conn.execute(_COUNT_UP)
