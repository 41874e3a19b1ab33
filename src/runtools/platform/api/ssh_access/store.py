"""Passes and the gateway's address in the database, and what lets a key into a sandbox."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    delete,
    func,
    insert,
    or_,
    select,
)

from runtools.errors import Conflict
from runtools.platform.api.guests import store as guests
from runtools.platform.api.keys import store as keys
from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.api.sessions import store as sessions
from runtools.platform.api.ssh_keys.store import ssh_keys
from runtools.platform.api.vault.vault import Vault
from runtools.platform.core import access
from runtools.platform.core.access import Caller
from runtools.platform.core.ports.host import Guest
from runtools.platform.kit import sshkeys
from runtools.platform.kit.db import Document, Moment, metadata

passes = Table(
    "ssh_passes",
    metadata,
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("caller_id", String(24), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Index(None, "expires_at"),
)

# One row: all gateways of a platform share their keys and stand behind one address.
gateway = Table(
    "ssh_gateway",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("host_keys", Document, nullable=False),
)

MOST = 1000
"""How many passes of a sandbox may be good at once."""
KEPT_AFTER = timedelta(days=7)
"""How long a pass that is over is kept, for the sessions that it has opened go on."""
NEEDED = "sandbox:write"
"""What who made a pass must still be allowed for it to open."""
_GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Pass:
    """A key that opens one sandbox for as long as who made it may do so.

    ``expires_at`` bounds new logins.
    """

    sandbox_id: str
    fingerprint: str
    org_id: str
    caller_id: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Place:
    """A sandbox, as far as its door needs it. ``actor``: who is written down when it opens."""

    org_id: str
    state: str
    wanted: str
    ending: dict[str, Any] | None
    actor: str = ""


def add(conn: Connection, made: Pass) -> None:
    """Keep a pass in place of the same key's earlier one; those that are long over go.

    Raises:
        Conflict: as many keys are let in as may be.
    """
    # Of those that add at once, each counts what those before it have added.
    its = sandboxes.c.id == made.sandbox_id
    conn.execute(select(sandboxes.c.id).where(its).with_for_update(key_share=True))
    conn.execute(delete(passes).where(passes.c.expires_at < made.created_at - KEPT_AFTER))
    mine = (passes.c.org_id == made.org_id) & (passes.c.sandbox_id == made.sandbox_id)
    conn.execute(delete(passes).where(mine, passes.c.fingerprint == made.fingerprint))
    good = or_(passes.c.expires_at.is_(None), passes.c.expires_at > made.created_at)
    if int(conn.scalar(select(func.count()).where(mine, good)) or 0) >= MOST:
        raise Conflict(
            f"{MOST} keys are let into {made.sandbox_id} already",
            hint="let them in with ttlSeconds, or register one key for all: runtools ssh-key add",
        )
    conn.execute(insert(passes).values(**asdict(made)))


def place(conn: Connection, sandbox_id: str) -> Place | None:
    """Whose a sandbox is, and how it stands."""
    columns = (sandboxes.c.org_id, sandboxes.c.state, sandboxes.c.wanted, sandboxes.c.ending)
    row = conn.execute(select(*columns).where(sandboxes.c.id == sandbox_id)).first()
    return None if row is None else Place(*row)


def opens(
    conn: Connection,
    vault: Vault,
    idle: timedelta,
    sandbox_id: str,
    fingerprint: str,
    now: datetime,
    *,
    is_in: bool = False,
) -> Place | None:
    """The sandbox, where the key opens it: one of its org's, one that it was made with, or a pass.

    Args:
        is_in: it is asked for who has come in already: the time of a pass does not count.
    """
    found = place(conn, sandbox_id)
    told = guests.of(conn, vault, sandbox_id)
    registered = _registered(conn, sandbox_id, fingerprint)
    passing = _passing(conn, idle, sandbox_id, fingerprint, now, is_in=is_in)
    if found is None:
        return None
    actor = registered or passing or (fingerprint if _was_given(told, fingerprint) else None)
    return None if actor is None else replace(found, actor=actor)


def password_of(conn: Connection, vault: Vault, sandbox_id: str) -> tuple[Place | None, str | None]:
    """The sandbox, and the hash of the password that it was made with."""
    return place(conn, sandbox_id), guests.of(conn, vault, sandbox_id).password_hash


def set_host_keys(conn: Connection, host_keys: list[str]) -> None:
    """Keep what the gateway is known by."""
    conn.execute(delete(gateway).where(gateway.c.id == _GATEWAY))
    conn.execute(insert(gateway).values(id=_GATEWAY, host_keys=host_keys))


def host_keys(conn: Connection) -> list[str]:
    """What the gateway is known by; nothing before its first start."""
    return list(conn.scalar(select(gateway.c.host_keys).where(gateway.c.id == _GATEWAY)) or [])


def _registered(conn: Connection, sandbox_id: str, fingerprint: str) -> str | None:
    query = (
        select(ssh_keys.c.id)
        .join_from(sandboxes, ssh_keys, sandboxes.c.org_id == ssh_keys.c.org_id)
        .where(sandboxes.c.id == sandbox_id, ssh_keys.c.fingerprint == fingerprint)
    )
    return conn.scalar(query)


def _was_given(told: Guest, fingerprint: str) -> bool:
    return any(sshkeys.parse(line).fingerprint == fingerprint for line in told.ssh_keys)


def _passing(
    conn: Connection,
    idle: timedelta,
    sandbox_id: str,
    fingerprint: str,
    now: datetime,
    *,
    is_in: bool,
) -> str | None:
    """Who made a pass that opens now; their rights are those of this moment."""
    mine = (passes.c.sandbox_id == sandbox_id) & (passes.c.fingerprint == fingerprint)
    row = conn.execute(
        select(passes.c.org_id, passes.c.caller_id, passes.c.expires_at).where(mine)
    ).first()
    if row is None or (not is_in and row.expires_at is not None and row.expires_at <= now):
        return None
    maker = _living(conn, row.caller_id, idle)
    if maker is None or maker.org_id != row.org_id or not access.covers(maker.scopes, NEEDED):
        return None
    return None if maker.expires_at is not None and maker.expires_at <= now else maker.actor


def _living(conn: Connection, caller_id: str, idle: timedelta) -> Caller | None:
    if caller_id.startswith("ses_"):
        return sessions.living(conn, caller_id, idle)
    return keys.living(conn, caller_id)
