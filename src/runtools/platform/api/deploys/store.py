"""Deploys in the database, and the lease that says which process is carrying one out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from runtools.errors import DeployRunning
from runtools.platform.api.deploys.tables import LABEL, Row, deploys
from runtools.platform.api.projects.store import projects
from runtools.platform.api.vault.vault import Sealed, Vault

_COLUMNS = [
    projects.c.name if field.name == "project" else deploys.c[field.name] for field in fields(Row)
]


def _all() -> Select[Any]:
    return select(*_COLUMNS).join(projects, projects.c.id == deploys.c.project_id)


def find(conn: Connection, org_id: str, deploy_id: str) -> Row | None:
    """The org's deploy of that id."""
    query = _all().where(deploys.c.org_id == org_id, deploys.c.id == deploy_id)
    row = conn.execute(query).first()
    return None if row is None else Row(*row)


def by_op(conn: Connection, org_id: str, op: str) -> Row | None:
    """The deploy that an act has begun before."""
    query = _all().where(deploys.c.org_id == org_id, deploys.c.op == op)
    row = conn.execute(query).first()
    return None if row is None else Row(*row)


def page(
    conn: Connection,
    org_id: str,
    project_id: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Row]:
    """The org's deploys, the latest first, from before a place on."""
    query = _all().where(deploys.c.org_id == org_id)
    if project_id is not None:
        query = query.where(deploys.c.project_id == project_id)
    if before is not None:
        at, deploy_id = before
        beside = (deploys.c.created_at == at) & (deploys.c.id < deploy_id)
        query = query.where(or_(deploys.c.created_at < at, beside))
    query = query.order_by(deploys.c.created_at.desc(), deploys.c.id.desc()).limit(limit)
    return [Row(*row) for row in conn.execute(query)]


def running(conn: Connection, project_id: str) -> str | None:
    """The id of the deploy that is under way in a project."""
    query = select(deploys.c.id).where(
        deploys.c.project_id == project_id, deploys.c.state == "running"
    )
    found: str | None = conn.scalar(query)
    return found


def refuse_beside(conn: Connection, project_id: str) -> None:
    """Nothing else changes what stands in a project while a deploy does; holds until the end.

    Raises:
        DeployRunning: one is under way.
    """
    # It lets those be who hold the project alone: two of them that come here would wait for each other.
    mine = select(projects.c.id).where(projects.c.id == project_id)
    conn.execute(mine.with_for_update(key_share=True))
    if (deploy_id := running(conn, project_id)) is not None:
        raise under_way(deploy_id)


def under_way(deploy_id: str) -> DeployRunning:
    """What is said to who would change something meanwhile."""
    return DeployRunning(
        f"{deploy_id} is under way in the project",
        hint=f"runtools deploys show {deploy_id} tells how far it is; try again when it has ended",
        details={"deployId": deploy_id},
    )


def add(
    conn: Connection,
    vault: Vault,
    values: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]],
    work: str,
) -> None:
    """A deploy that is to be carried out.

    Raises:
        DeployRunning: another one of the project is under way.
    """
    sealed = vault.seal(conn, work, LABEL, values["id"])
    row = {**values, "changes": list(changes), "state": "running", "done": 0}
    try:
        conn.execute(insert(deploys).values(**row, key_id=sealed.key_id, sealed=sealed.sealed))
    except IntegrityError as exc:
        raise DeployRunning(
            "another deploy of the project has just begun", hint="runtools deploys list shows it"
        ) from exc


def cancel(conn: Connection, org_id: str, deploy_id: str, actor: str) -> str | None:
    """Have the org's deploy end as soon as may be, if it runs; returns its state."""
    mine = (deploys.c.org_id == org_id) & (deploys.c.id == deploy_id)
    state: str | None = conn.scalar(select(deploys.c.state).where(mine).with_for_update())
    if state == "running":
        first = func.coalesce(deploys.c.cancelled_by, actor)
        conn.execute(update(deploys).where(mine).values(cancelled_by=first))
    return state


def cancelled(conn: Connection, deploy_id: str) -> str | None:
    """Who has cancelled a deploy."""
    query = select(deploys.c.cancelled_by).where(deploys.c.id == deploy_id)
    found: str | None = conn.scalar(query)
    return found


def waiting(conn: Connection, now: datetime) -> list[str]:
    """Ids of deploys that are under way, with nobody at them."""
    query = select(deploys.c.id).where(deploys.c.state == "running", _is_free(now))
    return [row[0] for row in conn.execute(query.order_by(deploys.c.created_at))]


def take(
    conn: Connection, vault: Vault, deploy_id: str, lease: str, now: datetime, until: datetime
) -> tuple[Row, str] | None:
    """Take a deploy for this process, unless another one has it; returns it with its work."""
    mine = (deploys.c.id == deploy_id) & (deploys.c.state == "running") & _is_free(now)
    taken = conn.execute(update(deploys).where(mine).values(lease=lease, leased_until=until))
    if taken.rowcount != 1:
        return None
    row = conn.execute(
        _all().add_columns(deploys.c.key_id, deploys.c.sealed).where(deploys.c.id == deploy_id)
    ).one()
    work = vault.open(Sealed(row.key_id, row.sealed), LABEL, deploy_id)
    return Row(*row[: len(_COLUMNS)]), work


def hold(conn: Connection, deploy_id: str, lease: str, until: datetime) -> bool:
    """Keep a deploy for longer; false where another process has taken it."""
    return _set(conn, deploy_id, lease, {"leased_until": until})


def advance(conn: Connection, deploy_id: str, lease: str, done: int) -> bool:
    """So many changes are carried out; false where another process has taken it."""
    return _set(conn, deploy_id, lease, {"done": done})


def stumble(conn: Connection, deploy_id: str, lease: str, error: Mapping[str, Any]) -> bool:
    """What the next change failed at: from here on it only tidies up."""
    return _set(conn, deploy_id, lease, {"error": dict(error)})


def end(conn: Connection, deploy_id: str, lease: str, state: str, now: datetime) -> bool:
    """It has ended; what it was carried out with is erased."""
    over = {"state": state, "ended_at": now, "lease": None, "leased_until": None}
    return _set(conn, deploy_id, lease, {**over, "key_id": None, "sealed": None})


def let_go(conn: Connection, deploy_id: str, lease: str, now: datetime) -> None:
    """Whoever comes next may take it at once."""
    _set(conn, deploy_id, lease, {"leased_until": now, "lease": None})


def is_held(conn: Connection, deploy_id: str, lease: str) -> bool:
    """Whether the lease is in force; it stays so until the transaction's end."""
    query = select(deploys.c.id).where(deploys.c.id == deploy_id, deploys.c.lease == lease)
    return conn.execute(query.with_for_update()).first() is not None


def _set(conn: Connection, deploy_id: str, lease: str, values: Mapping[str, Any]) -> bool:
    mine = (deploys.c.id == deploy_id) & (deploys.c.lease == lease)
    return bool(conn.execute(update(deploys).where(mine).values(**values)).rowcount == 1)


def _is_free(now: datetime) -> Any:
    return or_(deploys.c.lease.is_(None), deploys.c.leased_until < now)
