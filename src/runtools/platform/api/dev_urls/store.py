"""Choices about dev URLs and links to them, in the database.

A choice is of a port, of a sandbox (port 0) or of the org (no sandbox): the nearest counts. Of a link the
digest is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Literal

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
)

from runtools.platform.api.idempotency.rules import under_way
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.core.access import Kind as MakerKind
from runtools.platform.kit.db import Moment, metadata
from runtools.sdk.shapes.dev_urls import Access, DecidedBy

dev_url_choices = Table(
    "dev_url_choices",
    metadata,
    Column("org_id", String(24), ForeignKey("orgs.id"), primary_key=True),
    Column("sandbox_id", String(24), primary_key=True),
    Column("port", Integer, primary_key=True, autoincrement=False),
    Column("access", String(8), nullable=False),
    Column("chosen_by", String(64), nullable=False),
    Column("chosen_at", Moment, nullable=False),
)

dev_url_links = Table(
    "dev_url_links",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("sandbox_id", String(24), ForeignKey("sandboxes.id"), nullable=False),
    Column("port", Integer, nullable=False),
    Column("kind", String(8), nullable=False),
    # Whose right it is: it opens nothing once that person or key may not enter any more.
    Column("maker", String(64), nullable=False),
    Column("maker_kind", String(8), nullable=False),
    Column("maker_digest", String(64), nullable=False),
    Column("op", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    UniqueConstraint("org_id", "op"),
    Index(None, "org_id", "sandbox_id", "port"),
    Index(None, "expires_at"),
)

ALL = 0
"""The port of a choice about all ports of a sandbox."""
_EVERYWHERE = ""

Kind = Literal["link", "ticket", "cookie"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Who may enter, and where that was decided."""

    access: Access
    decided_by: DecidedBy


@dataclass(frozen=True, slots=True)
class Place:
    """Whose a port of a sandbox is, and who may enter."""

    org_id: str
    access: Access


@dataclass(frozen=True, slots=True)
class Link:
    """A link's row: ``ticket`` is good once and becomes a ``cookie``, ``link`` as often as it is opened."""

    digest: str
    org_id: str
    sandbox_id: str
    port: int
    kind: Kind
    maker: str
    maker_kind: MakerKind
    maker_digest: str
    op: str
    created_at: datetime
    expires_at: datetime


_COLUMNS = [dev_url_links.c[field.name] for field in fields(Link)]


# --- choices ---


def choose(
    conn: Connection,
    org_id: str,
    sandbox_id: str | None,
    port: int,
    access: Access,
    by: str,
    now: datetime,
) -> None:
    """Decide for a port, for all of a sandbox, or (without a sandbox) for the org."""
    # Of those that decide at once, one comes after the other.
    orgs.lock(conn, org_id)
    where = {"org_id": org_id, "sandbox_id": sandbox_id or _EVERYWHERE, "port": port}
    table = dev_url_choices
    conn.execute(delete(table).where(*(table.c[name] == value for name, value in where.items())))
    conn.execute(insert(table).values(**where, access=access, chosen_by=by, chosen_at=now))


def forget(conn: Connection, org_id: str, sandbox_id: str, port: int | None) -> None:
    """Take choices and links of a port back, or all of a sandbox."""
    for table in (dev_url_choices, dev_url_links):
        mine = (table.c.org_id == org_id) & (table.c.sandbox_id == sandbox_id)
        conn.execute(delete(table).where(mine if port is None else mine & (table.c.port == port)))


def choices(conn: Connection, org_id: str, sandbox_id: str) -> Mapping[int, Access]:
    """What was chosen for a sandbox and its ports."""
    query = select(dev_url_choices.c.port, dev_url_choices.c.access).where(
        dev_url_choices.c.org_id == org_id, dev_url_choices.c.sandbox_id == sandbox_id
    )
    return {row.port: row.access for row in conn.execute(query)}


def of_org(conn: Connection, org_id: str) -> Access | None:
    """What the org has chosen for all its sandboxes."""
    query = select(dev_url_choices.c.access).where(
        dev_url_choices.c.org_id == org_id, dev_url_choices.c.sandbox_id == _EVERYWHERE
    )
    return conn.scalar(query)


def place(conn: Connection, sandbox_id: str, port: int) -> Place | None:
    """Whose a port is and who may enter; None: there is no such sandbox."""
    ours = (
        (dev_url_choices.c.org_id == sandboxes.c.org_id)
        & dev_url_choices.c.sandbox_id.in_((sandbox_id, _EVERYWHERE))
        & dev_url_choices.c.port.in_((port, ALL))
    )
    query = (
        select(
            sandboxes.c.org_id,
            dev_url_choices.c.sandbox_id,
            dev_url_choices.c.port,
            dev_url_choices.c.access,
        )
        .select_from(sandboxes.outerjoin(dev_url_choices, ours))
        .where(sandboxes.c.id == sandbox_id)
    )
    rows = conn.execute(query).all()
    if not rows:
        return None
    # The nearest last: the org's, the sandbox's, the port's own.
    known = sorted((row for row in rows if row.access), key=lambda row: (row.sandbox_id, row.port))
    return Place(rows[0].org_id, known[-1].access if known else "private")


# --- links ---


def made_by(conn: Connection, org_id: str, op: str) -> str | None:
    """The digest of the link that an act has made."""
    table = dev_url_links
    query = select(table.c.digest).where(table.c.org_id == org_id, table.c.op == op)
    found: str | None = conn.scalar(query)
    return found


def add(conn: Connection, link: Link, before: str | None = None) -> None:
    """A new link; the same act again makes it another one, for its secret is kept nowhere.

    Args:
        before: the digest of the one that the act had made when it was begun.

    Raises:
        Unavailable: its twin has made one since, and tells of it.
    """
    table = dev_url_links
    orgs.lock(conn, link.org_id)
    if made_by(conn, link.org_id, link.op) != before:
        raise under_way()
    conn.execute(delete(table).where(table.c.org_id == link.org_id, table.c.op == link.op))
    conn.execute(insert(table).values(**asdict(link)))


def counts(conn: Connection, org_id: str, sandbox_id: str, now: datetime) -> Mapping[int, int]:
    """How many links open each port of a sandbox."""
    table = dev_url_links
    query = select(table.c.port, func.count()).where(
        table.c.org_id == org_id,
        table.c.sandbox_id == sandbox_id,
        table.c.kind == "link",
        table.c.expires_at > now,
    )
    return {row[0]: row[1] for row in conn.execute(query.group_by(table.c.port))}


def end_links(conn: Connection, org_id: str, sandbox_id: str, port: int) -> None:
    """End every link to a port, and what they have become."""
    table = dev_url_links
    mine = (table.c.org_id == org_id) & (table.c.sandbox_id == sandbox_id)
    conn.execute(delete(table).where(mine, table.c.port == port))


def opening(
    conn: Connection, sandbox_id: str, port: int, digests: Sequence[str], now: datetime
) -> list[Link]:
    """The links of those digests that open a port."""
    table = dev_url_links
    query = select(*_COLUMNS).where(
        table.c.digest.in_(digests),
        table.c.sandbox_id == sandbox_id,
        table.c.port == port,
        table.c.expires_at > now,
    )
    return [Link(*row) for row in conn.execute(query)]


def redeem(conn: Connection, ticket: Link, cookie: Link) -> bool:
    """Make a ticket a cookie; False: somebody else has."""
    table = dev_url_links
    gone = conn.execute(
        delete(table).where(table.c.org_id == ticket.org_id, table.c.digest == ticket.digest)
    )
    if not gone.rowcount:
        return False
    conn.execute(insert(table).values(**asdict(cookie)))
    return True


def drop(conn: Connection, before: datetime) -> None:
    """Those that ended before."""
    conn.execute(delete(dev_url_links).where(dev_url_links.c.expires_at < before))
