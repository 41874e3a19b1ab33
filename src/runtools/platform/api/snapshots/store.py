"""Snapshots in the database."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from runtools.errors import NameTaken
from runtools.platform.api.idempotency.rules import under_way
from runtools.platform.kit.db import Moment, metadata

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id"), nullable=False),
    Column("host_id", String(64), nullable=False),
    Column("name", String(63)),
    Column("template_id", String(24), ForeignKey("template_versions.id"), nullable=False),
    Column("template", String(63), nullable=False),
    Column("template_version", Integer, nullable=False),
    Column("state", String(8), nullable=False),  # making, ready, dropping, dropped
    Column("op", String(64), nullable=False),
    Column("drop_op", String(64)),
    Column("actor", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("standstill_ms", Float, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "org_id", "op", unique=True),
    Index(None, "sandbox_id", "created_at"),
    Index(
        "ix_snapshots_name",
        "sandbox_id",
        "name",
        unique=True,
        sqlite_where=text("name IS NOT NULL AND state <> 'dropped'"),
        postgresql_where=text("name IS NOT NULL AND state <> 'dropped'"),
    ),
)


@dataclass(frozen=True, slots=True)
class Keep:
    """A snapshot's row."""

    id: str
    org_id: str
    sandbox_id: str
    host_id: str
    name: str | None
    template_id: str
    template: str
    template_version: int
    op: str
    actor: str
    created_at: datetime
    state: str = "making"
    drop_op: str | None = None
    size_bytes: int = 0
    standstill_ms: float = 0.0


_COLUMNS = [snapshots.c[field.name] for field in fields(Keep)]


def add(conn: Connection, keep: Keep) -> None:
    """A snapshot that is to be made.

    Raises:
        NameTaken: a snapshot of the sandbox bears the name.
        Unavailable: the same act is making it at this moment.
    """
    try:
        conn.execute(insert(snapshots).values(**asdict(keep)))
    except IntegrityError as exc:
        if "name" not in str(exc.orig):
            raise under_way() from exc
        raise NameTaken(
            f"{keep.sandbox_id} has a snapshot named {keep.name!r} already",
            hint="choose another name, or delete that one first",
            details={"name": keep.name},
        ) from exc


def by_op(conn: Connection, org_id: str, op: str) -> Keep | None:
    """The snapshot that an act makes, if it has been begun before."""
    query = select(*_COLUMNS).where(snapshots.c.org_id == org_id, snapshots.c.op == op)
    row = conn.execute(query).first()
    return None if row is None else Keep(*row)


def find(conn: Connection, org_id: str, sandbox_id: str, ref: str) -> Keep | None:
    """The sandbox's snapshot of that id or name, if it is whole or being dropped."""
    query = select(*_COLUMNS).where(
        snapshots.c.org_id == org_id,
        snapshots.c.sandbox_id == sandbox_id,
        or_(snapshots.c.id == ref, snapshots.c.name == ref),
        snapshots.c.state.in_(("ready", "dropping")),
    )
    row = conn.execute(query).first()
    return None if row is None else Keep(*row)


def page(
    conn: Connection,
    org_id: str,
    sandbox_id: str,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Keep]:
    """The sandbox's whole snapshots, the oldest first."""
    query = select(*_COLUMNS).where(
        snapshots.c.org_id == org_id,
        snapshots.c.sandbox_id == sandbox_id,
        snapshots.c.state == "ready",
    )
    if after is not None:
        at, snapshot_id = after
        beside = (snapshots.c.created_at == at) & (snapshots.c.id > snapshot_id)
        query = query.where(or_(snapshots.c.created_at > at, beside))
    query = query.order_by(snapshots.c.created_at, snapshots.c.id).limit(limit)
    return [Keep(*row) for row in conn.execute(query)]


def ready(conn: Connection, snapshot_id: str, size_bytes: int, standstill_ms: float) -> None:
    """The snapshot is whole."""
    conn.execute(
        update(snapshots)
        .where(snapshots.c.id == snapshot_id)
        .values(state="ready", size_bytes=size_bytes, standstill_ms=standstill_ms)
    )


def mark(conn: Connection, snapshot_id: str, state: str, op: str | None) -> None:
    """Set the snapshot's state, and the act that drops it. One dropped stays on record for repeats."""
    conn.execute(
        update(snapshots).where(snapshots.c.id == snapshot_id).values(state=state, drop_op=op)
    )


def gone_with(conn: Connection, sandbox_id: str) -> None:
    """Nobody can go back to them any more: their sandbox has ended, and nothing of it is kept."""
    conn.execute(
        update(snapshots)
        .where(snapshots.c.sandbox_id == sandbox_id, snapshots.c.state == "ready")
        .values(state="dropped")
    )


def dropped_by(conn: Connection, org_id: str, op: str) -> Keep | None:
    """The snapshot that an act has dropped, or is dropping."""
    query = select(*_COLUMNS).where(snapshots.c.org_id == org_id, snapshots.c.drop_op == op)
    row = conn.execute(query).first()
    return None if row is None else Keep(*row)


def forget(conn: Connection, snapshot_id: str) -> None:
    """The snapshot was refused: it never was."""
    conn.execute(delete(snapshots).where(snapshots.c.id == snapshot_id))


def unfinished(conn: Connection, before: datetime, limit: int) -> list[Keep]:
    """Snapshots whose making or dropping was begun and not seen to end, the oldest first."""
    query = (
        select(*_COLUMNS)
        .where(snapshots.c.state.in_(("making", "dropping")), snapshots.c.created_at < before)
        .order_by(snapshots.c.created_at)
        .limit(limit)
    )
    return [Keep(*row) for row in conn.execute(query)]


def users_of(conn: Connection, template_id: str) -> dict[str, int]:
    """How many snapshots of each org stand on a template version."""
    query = (
        select(snapshots.c.org_id, func.count())
        .where(snapshots.c.template_id == template_id, snapshots.c.state != "dropped")
        .group_by(snapshots.c.org_id)
    )
    return {org_id: int(count) for org_id, count in conn.execute(query)}
