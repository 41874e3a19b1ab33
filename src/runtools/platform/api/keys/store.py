"""API keys in the database: their digests, never themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, ForeignKey, Index, String, Table, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runtools.platform.kit.db import Moment, metadata

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
    Index(None, "org_id", "op", unique=True),
)

_BY_DIGEST = select(api_keys.c.id, api_keys.c.org_id, api_keys.c.digest).where(
    api_keys.c.digest == bindparam("digest"), api_keys.c.revoked_at.is_(None)
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key's record. ``digest`` is all that is kept of the key itself."""

    id: str
    org_id: str
    name: str
    prefix: str
    digest: str
    op: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """What is known of a key that opens a door."""

    id: str
    org_id: str
    digest: str


async def match(conn: AsyncConnection, digest: str) -> Match | None:
    """The living key of that digest."""
    row = (await conn.execute(_BY_DIGEST, {"digest": digest})).first()
    return None if row is None else Match(*row)


async def add(conn: AsyncConnection, key: Key) -> None:
    """Keep a new key."""
    await conn.execute(insert(api_keys).values({f: getattr(key, f) for f in Key.__slots__}))


async def by_op(conn: AsyncConnection, org_id: str, op: str) -> Key | None:
    """The key that an act made, if it has been done before."""
    query = select(api_keys).where(api_keys.c.org_id == org_id, api_keys.c.op == op)
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else Key(**row)


async def all_of(conn: AsyncConnection, org_id: str) -> list[Key]:
    """The org's keys, revoked ones too, newest first."""
    query = (
        select(api_keys)
        .where(api_keys.c.org_id == org_id)
        .order_by(api_keys.c.created_at.desc(), api_keys.c.id)
    )
    return [Key(**row) for row in (await conn.execute(query)).mappings()]


async def revoke(conn: AsyncConnection, org_id: str, key_id: str, now: datetime) -> Key | None:
    """Close the key's door; a revoked one keeps the time of its first revocation."""
    mine = (api_keys.c.org_id == org_id) & (api_keys.c.id == key_id)
    await conn.execute(
        update(api_keys).where(mine, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    row = (await conn.execute(select(api_keys).where(mine))).mappings().first()
    return None if row is None else Key(**row)


async def used(conn: AsyncConnection, times: Mapping[str, datetime]) -> None:
    """Note when keys were last used."""
    for key_id, at in times.items():
        await conn.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=at))
