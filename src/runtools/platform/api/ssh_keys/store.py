"""SSH keys in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.exc import IntegrityError

from runtools.errors import Conflict, NameTaken
from runtools.platform.api.orgs import store as orgs
from runtools.platform.kit.db import Moment, metadata

ssh_keys = Table(
    "ssh_keys",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("project_id", String(24), ForeignKey("projects.id"), nullable=False),
    Column("label", String(63), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("bits", Integer),
    Column("fingerprint", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("op", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("org_id", "label"),
    UniqueConstraint("org_id", "fingerprint"),
    Index(None, "org_id", "op", unique=True),
)

MOST = 1000


@dataclass(frozen=True, slots=True)
class SshKey:
    """An SSH key's row."""

    id: str
    org_id: str
    project_id: str
    label: str
    kind: str
    bits: int | None
    fingerprint: str
    public_key: str
    created_by: str
    op: str
    created_at: datetime


_COLUMNS = [ssh_keys.c[field.name] for field in fields(SshKey)]


def made_by(conn: Connection, org_id: str, op: str) -> SshKey | None:
    """The key that an act has registered."""
    query = select(*_COLUMNS).where(ssh_keys.c.org_id == org_id, ssh_keys.c.op == op)
    row = conn.execute(query).first()
    return None if row is None else SshKey(*row)


def add(conn: Connection, key: SshKey) -> None:
    """A new key.

    Raises:
        NameTaken: the org has one of that label.
        Conflict: it has that key, or as many as it may have.
    """
    # Of those that add at once, each counts what those before it have added.
    orgs.lock(conn, key.org_id)
    mine = ssh_keys.c.org_id == key.org_id
    count = conn.scalar(select(func.count()).where(mine))
    if int(count or 0) >= MOST:
        raise Conflict(f"there are {MOST} SSH keys already", hint="remove some of them first")
    there = conn.scalar(
        select(ssh_keys.c.label).where(mine, ssh_keys.c.fingerprint == key.fingerprint)
    )
    if there is not None:
        raise _known(key.fingerprint, there)
    try:
        conn.execute(insert(ssh_keys).values(**asdict(key)))
    except IntegrityError as exc:
        if "label" in str(exc.orig):
            raise NameTaken(
                f"an SSH key is labelled {key.label!r} already",
                hint="choose another label",
                details={"label": key.label},
            ) from exc
        # Somebody registers the same at this moment.
        raise _known(key.fingerprint, None) from exc


def find(conn: Connection, org_id: str, ref: str) -> SshKey | None:
    """The org's key of that id or label."""
    query = select(*_COLUMNS).where(
        ssh_keys.c.org_id == org_id, or_(ssh_keys.c.id == ref, ssh_keys.c.label == ref)
    )
    row = conn.execute(query).first()
    return None if row is None else SshKey(*row)


def page(
    conn: Connection, org_id: str, project_id: str | None, after: str, limit: int
) -> list[SshKey]:
    """The org's keys (those of a project) by label, from after one on."""
    query = select(*_COLUMNS).where(ssh_keys.c.org_id == org_id, ssh_keys.c.label > after)
    if project_id is not None:
        query = query.where(ssh_keys.c.project_id == project_id)
    return [SshKey(*row) for row in conn.execute(query.order_by(ssh_keys.c.label).limit(limit))]


def remove(conn: Connection, org_id: str, ref: str) -> SshKey | None:
    """Take a key away; returns what it was."""
    found = find(conn, org_id, ref)
    if found is not None:
        conn.execute(delete(ssh_keys).where(ssh_keys.c.org_id == org_id, ssh_keys.c.id == found.id))
    return found


def remove_made_by(conn: Connection, org_id: str, makers: Sequence[str]) -> None:
    """Take away those that a person or its API keys have registered."""
    mine = (ssh_keys.c.org_id == org_id) & ssh_keys.c.created_by.in_(makers)
    conn.execute(delete(ssh_keys).where(mine))


def remove_all_made_by(conn: Connection, makers: Sequence[str]) -> None:
    """The same in every org."""
    conn.execute(delete(ssh_keys).where(ssh_keys.c.created_by.in_(makers)))


def _known(fingerprint: str, label: str | None) -> Conflict:
    named = "" if label is None else f", labelled {label!r}"
    return Conflict(
        f"the org has this key already{named}",
        hint="runtools ssh-key list shows those there are",
        details={"fingerprint": fingerprint},
    )
