"""What sandboxes are told inside, sealed in the database until nothing can be started from it any more."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
)

from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.api.vault.store import SealedColumn
from runtools.platform.api.vault.vault import Sealed, Vault
from runtools.platform.core.ports.host import Guest
from runtools.platform.kit.db import metadata

guests = Table(
    "guests",
    metadata,
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id"), primary_key=True),
    Column("key_id", String(16), nullable=False),
    Column("sealed", Text, nullable=False),
)

_LABEL = "guest"
SEALED = SealedColumn(guests, key=("sandbox_id",), place=("sandbox_id",), label=_LABEL)


def keep(conn: Connection, vault: Vault, sandbox_id: str, guest: Guest) -> None:
    """Keep what a sandbox is told."""
    sealed = vault.seal(conn, guest.model_dump_json(), _LABEL, sandbox_id)
    conn.execute(insert(guests).values(sandbox_id=sandbox_id, **asdict(sealed)))


def of(conn: Connection, vault: Vault, sandbox_id: str) -> Guest:
    """What a sandbox is told; nothing, once it has been forgotten."""
    query = select(guests.c.key_id, guests.c.sealed).where(guests.c.sandbox_id == sandbox_id)
    row = conn.execute(query).first()
    if row is None:
        return Guest()
    return Guest.model_validate_json(vault.open(Sealed(*row), _LABEL, sandbox_id))


def forget(conn: Connection, sandbox_id: str) -> None:
    """Erase it."""
    conn.execute(delete(guests).where(guests.c.sandbox_id == sandbox_id))


def forget_ended(conn: Connection, before: datetime) -> int:
    """Erase it for ended sandboxes, once nothing can be recovered from them."""
    ended = select(sandboxes.c.id).where(
        sandboxes.c.state == "stopped", sandboxes.c.stopped_at < before
    )
    return int(conn.execute(delete(guests).where(guests.c.sandbox_id.in_(ended))).rowcount)


def is_kept() -> ColumnElement[bool]:
    """Whether something is kept for the row of `sandboxes` that a query looks at."""
    return select(guests.c.sandbox_id).where(guests.c.sandbox_id == sandboxes.c.id).exists()
