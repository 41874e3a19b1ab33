"""Projects in the database, and what lies in them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Select,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError

from runtools.errors import NameTaken, NotFound
from runtools.platform.api.definitions.tables import definitions
from runtools.platform.api.deploys.tables import deploys
from runtools.platform.api.idempotency.rules import under_way
from runtools.platform.api.keys.store import api_keys
from runtools.platform.api.runs.tables import runs
from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.api.ssh_keys.store import ssh_keys
from runtools.platform.api.threads.tables import threads
from runtools.platform.kit.db import Moment, metadata

projects = Table(
    "projects",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("color", String(7)),
    Column("op", String(64)),  # the act that made it; none: the platform itself
    UniqueConstraint("org_id", "name"),
    Index(None, "org_id", "op", unique=True),
)


@dataclass(frozen=True, slots=True)
class Project:
    """A project's row."""

    id: str
    org_id: str
    name: str
    is_default: bool
    created_at: datetime
    color: str | None = None
    op: str | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing that lies in projects, and which of them still count."""

    table: Table
    living: ColumnElement[bool]


KINDS = {
    "sandboxes": Kind(sandboxes, sandboxes.c.state != "stopped"),
    "api_keys": Kind(api_keys, api_keys.c.revoked_at.is_(None)),
    "ssh_keys": Kind(ssh_keys, true()),
}
"""By the name that each kind has in requests and counts."""

STANDING = {"agent": "agents", "tool": "tools", "sandbox": "standing_sandboxes"}
"""What deploys have put there, by kind: it goes by a deploy, and is not moved."""

_COLUMNS = [projects.c[field.name] for field in fields(Project)]


def add(conn: Connection, project: Project) -> Project:
    """A new project.

    Raises:
        NameTaken: the org has one of that name.
        Unavailable: the same act is making it at this moment.
    """
    try:
        conn.execute(insert(projects).values(**asdict(project)))
    except IntegrityError as exc:
        if "name" not in str(exc.orig):
            raise under_way() from exc
        raise _taken(project.name) from exc
    return project


def made_by(conn: Connection, org_id: str, op: str) -> Project | None:
    """The project that an act has made."""
    mine = (projects.c.org_id == org_id) & (projects.c.op == op)
    row = conn.execute(select(*_COLUMNS).where(mine)).first()
    return None if row is None else Project(*row)


def find(conn: Connection, org_id: str, ref: str | None) -> str | None:
    """The id of the org's project of that id or name; without one, of the org's default."""
    found: str | None = conn.scalar(_query(org_id, ref).with_only_columns(projects.c.id))
    return found


def held(conn: Connection, org_id: str, ref: str | None) -> Project | None:
    """The same project whole; it is not taken away before the transaction's end."""
    query = _query(org_id, ref).with_for_update(read=True, key_share=True)
    row = conn.execute(query).first()
    return None if row is None else Project(*row)


def place(conn: Connection, org_id: str, ref: str | None) -> str:
    """The id of the project that a new thing comes into: the one named, else the org's default.

    Raises:
        NotFound: the org has none of that id or name.
    """
    project = held(conn, org_id, ref)
    if project is None:
        raise unknown(ref or "default")
    return project.id


def locked(conn: Connection, org_id: str, ref: str) -> Project | None:
    """The same project, with nobody else at it before the transaction's end."""
    row = conn.execute(_query(org_id, ref).with_for_update()).first()
    return None if row is None else Project(*row)


def _query(org_id: str, ref: str | None) -> Select[Any]:
    # An id has an underscore, which no name may have: one never stands for another.
    wanted = (
        projects.c.is_default if ref is None else or_(projects.c.id == ref, projects.c.name == ref)
    )
    return select(*_COLUMNS).where(projects.c.org_id == org_id, wanted).limit(1)


def page(conn: Connection, org_id: str, after: str | None, limit: int) -> list[Project]:
    """The org's projects, the default one first, then by name, from after one on (empty: the default)."""
    query = select(*_COLUMNS).where(projects.c.org_id == org_id)
    if after is not None:
        query = query.where(projects.c.is_default.is_(False), projects.c.name > after)
    query = query.order_by(projects.c.is_default.desc(), projects.c.name).limit(limit)
    return [Project(*row) for row in conn.execute(query)]


def change(conn: Connection, project: Project) -> None:
    """Another name or colour.

    Raises:
        NameTaken: the org has one of that name.
    """
    mine = (projects.c.org_id == project.org_id) & (projects.c.id == project.id)
    values = {"name": project.name, "color": project.color}
    try:
        conn.execute(update(projects).where(mine).values(**values))
    except IntegrityError as exc:
        raise _taken(project.name) from exc


def remove(conn: Connection, org_id: str, project_id: str) -> None:
    """Take away a project in which nothing lies any more."""
    conn.execute(delete(projects).where(projects.c.org_id == org_id, projects.c.id == project_id))


def counts(conn: Connection, org_id: str) -> dict[str, dict[str, int]]:
    """How many living things of each kind lie in each of the org's projects."""
    found: dict[str, dict[str, int]] = {}
    for name, kind in KINDS.items():
        place = kind.table.c.project_id
        query = (
            select(place, func.count())
            .where(kind.table.c.org_id == org_id, kind.living)
            .group_by(place)
        )
        for project_id, count in conn.execute(query):
            found.setdefault(project_id, {})[name] = count
    standing = (
        select(definitions.c.project_id, definitions.c.kind, func.count())
        .where(definitions.c.org_id == org_id, definitions.c.deleted_at.is_(None))
        .group_by(definitions.c.project_id, definitions.c.kind)
    )
    for project_id, kind_of, count in conn.execute(standing):
        found.setdefault(project_id, {})[STANDING[kind_of]] = count
    return found


def stands_for(conn: Connection, org_id: str, sandbox_id: str, but_in: str) -> str | None:
    """The slug for which a sandbox of the org stands, in whichever project but one."""
    mine = (definitions.c.org_id == org_id) & (definitions.c.sandbox_id == sandbox_id)
    elsewhere = definitions.c.project_id != but_in
    found: str | None = conn.scalar(
        select(definitions.c.slug).where(mine, elsewhere, definitions.c.deleted_at.is_(None))
    )
    return found


def move(conn: Connection, org_id: str, kind: str, ids: Collection[str], project_id: str) -> int:
    """Put the org's things of those ids into a project; returns how many there were."""
    table = KINDS[kind].table
    done = conn.execute(
        update(table)
        .where(table.c.org_id == org_id, table.c.id.in_(ids))
        .values(project_id=project_id)
    )
    return int(done.rowcount)


def move_all(conn: Connection, org_id: str, source: str, target: str) -> None:
    """Put all that lies in one project, ended things too, into another."""
    is_agent = definitions.c.kind == "agent"
    moves: list[tuple[Table, ColumnElement[bool]]] = [
        # As they are locked elsewhere: who begins a run has its agent before the thread, who takes one the
        # thread before what runs take turns in, and both the run last.
        (definitions, is_agent),
        (threads, true()),
        (definitions, ~is_agent),
        *((kind.table, true()) for kind in KINDS.values()),
        (deploys, true()),
        (runs, true()),
    ]
    for table, which in moves:
        its = (table.c.org_id == org_id) & (table.c.project_id == source) & which
        conn.execute(update(table).where(its).values(project_id=target))


def _taken(name: str) -> NameTaken:
    return NameTaken(
        f"a project is named {name!r} already",
        hint="choose another name",
        details={"name": name},
    )


def unknown(ref: str, field: str = "projectId") -> NotFound:
    """The error for a project that the org has not."""
    return NotFound(
        f"no project {ref[:80]!r}",
        hint="runtools project list shows those there are",
        details={"field": field},
    )
