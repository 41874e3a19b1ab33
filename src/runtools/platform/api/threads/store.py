"""Threads in the database. A record is found by (org, id) and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime

from sqlalchemy import Connection, and_, delete, func, or_, select, update

from runtools.platform.api.runs.tables import runs
from runtools.platform.api.threads.tables import Thread, threads
from runtools.platform.kit.db import upsert

_COLUMNS = [threads.c[field.name] for field in fields(Thread)]


@dataclass(frozen=True, slots=True)
class Sought:
    """Which threads a list is of."""

    agent: str | None = None
    project_id: str | None = None


def add(conn: Connection, thread: Thread) -> bool:
    """A new thread; False: there is one of that id by now."""
    row = upsert(conn, threads).values(**asdict(thread))
    return conn.execute(row.on_conflict_do_nothing()).rowcount == 1


def find(conn: Connection, org_id: str, thread_id: str) -> Thread | None:
    """The org's thread of that id."""
    query = select(*_COLUMNS).where(threads.c.org_id == org_id, threads.c.id == thread_id)
    row = conn.execute(query).first()
    return None if row is None else Thread(*row)


def locked(conn: Connection, org_id: str, thread_id: str) -> Thread | None:
    """The same; nobody else changes it, or begins or takes a run of it, until the transaction's end."""
    query = select(*_COLUMNS).where(threads.c.org_id == org_id, threads.c.id == thread_id)
    row = conn.execute(query.with_for_update()).first()
    return None if row is None else Thread(*row)


def page(
    conn: Connection, org_id: str, sought: Sought, below: tuple[datetime, str] | None, limit: int
) -> list[tuple[Thread, int]]:
    """The org's threads, each with how many runs it has; the one used last first, after a place there."""
    count = select(func.count()).where(runs.c.thread_id == threads.c.id).scalar_subquery()
    query = select(*_COLUMNS, count).where(threads.c.org_id == org_id)
    if sought.agent is not None:
        named = or_(threads.c.agent_slug == sought.agent, threads.c.agent_id == sought.agent)
        query = query.where(named)
    if sought.project_id is not None:
        query = query.where(threads.c.project_id == sought.project_id)
    if below is not None:
        at, thread_id = below
        beside = and_(threads.c.updated_at == at, threads.c.id < thread_id)
        query = query.where(or_(threads.c.updated_at < at, beside))
    query = query.order_by(threads.c.updated_at.desc(), threads.c.id.desc()).limit(limit)
    return [(Thread(*row[:-1]), int(row[-1])) for row in conn.execute(query)]


def count_runs(conn: Connection, org_id: str, thread_id: str) -> int:
    """How many runs the org's thread has."""
    query = select(func.count()).where(runs.c.org_id == org_id, runs.c.thread_id == thread_id)
    return int(conn.scalar(query) or 0)


def rename(conn: Connection, org_id: str, thread_id: str, title: str | None) -> bool:
    """Another title; False: there is no such thread."""
    mine = (threads.c.org_id == org_id) & (threads.c.id == thread_id)
    return conn.execute(update(threads).where(mine).values(title=title)).rowcount == 1


def touch(conn: Connection, thread: Thread, now: datetime) -> None:
    """It was used."""
    mine = (threads.c.org_id == thread.org_id) & (threads.c.id == thread.id)
    conn.execute(update(threads).where(mine).values(updated_at=now))


def settle(conn: Connection, thread: Thread, sandbox_id: str) -> None:
    """The sandbox that was made for it."""
    mine = (threads.c.org_id == thread.org_id) & (threads.c.id == thread.id)
    conn.execute(
        update(threads).where(mine).values(sandbox_id=sandbox_id, places=thread.places + 1)
    )


def remove(conn: Connection, org_id: str, thread_id: str) -> None:
    """Delete a thread that has no runs any more."""
    conn.execute(delete(threads).where(threads.c.org_id == org_id, threads.c.id == thread_id))
