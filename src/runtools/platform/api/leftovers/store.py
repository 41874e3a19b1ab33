"""What runs have left running in sandboxes, until that is seen to have ended. It outlives the runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    and_,
    delete,
    or_,
    select,
)

from runtools.platform.api.runs.tables import Record
from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.kit.db import metadata, upsert

leftovers = Table(
    "leftovers",
    metadata,
    # No foreign key, which would hold the sandbox's row: it is noted under the lock of the run, and who
    # takes a run holds the sandbox first. Nor is a sandbox's row ever deleted.
    Column("sandbox_id", String(24), primary_key=True),
    # A process; of servers of tools how the names of all those of the run begin.
    Column("name", String(128), primary_key=True),
    Column("org_id", String(24), ForeignKey("orgs.id"), nullable=False),
    # Which may have been deleted with its thread.
    Column("run_id", String(24), nullable=False),
    # Of servers: those of a later lease are somebody's.
    Column("lease", Integer),
    Index(None, "run_id"),
)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A row: one command, or a run's servers of tools.

    Attributes:
        name: of the process; of servers how the names of all those of the run begin.
        lease: up to which lease servers were started; None: it is a command.
    """

    sandbox_id: str
    name: str
    org_id: str
    run_id: str
    lease: int | None = None


_COLUMNS = [leftovers.c[one.name] for one in fields(Leftover)]


def note(conn: Connection, one: Leftover) -> None:
    """It may run on; of servers the latest lease counts."""
    key = [leftovers.c.sandbox_id, leftovers.c.name]
    row = upsert(conn, leftovers).values(asdict(one))
    conn.execute(row.on_conflict_do_update(index_elements=key, set_={"lease": one.lease}))


def of_run(conn: Connection, record: Record) -> list[Leftover]:
    """What a run has left."""
    mine = (leftovers.c.org_id == record.org_id) & (leftovers.c.run_id == record.id)
    query = select(*_COLUMNS).where(mine).order_by(leftovers.c.name)
    return [Leftover(*row) for row in conn.execute(query)]


def due(conn: Connection, after: tuple[str, str], limit: int) -> list[Leftover]:
    """What can be ended, by sandbox and name after those: commands wherever they are, and servers in
    sandboxes that are awake or gone.
    """
    sandbox_id, name = leftovers.c.sandbox_id, leftovers.c.name
    awake = sandboxes.c.state.in_(("running", "stopped"))
    behind = or_(sandbox_id > after[0], and_(sandbox_id == after[0], name > after[1]))
    query = (
        select(*_COLUMNS)
        .join(sandboxes, sandboxes.c.id == sandbox_id)
        .where(or_(leftovers.c.lease.is_(None), awake), behind)
        .order_by(sandbox_id, name)
        .limit(limit)
    )
    return [Leftover(*row) for row in conn.execute(query)]


def ended(conn: Connection, one: Leftover) -> None:
    """It runs no more, or its host sees to that. What was noted again under a later lease stays."""
    same = [column == getattr(one, column.name) for column in _COLUMNS]  # None: IS NULL
    conn.execute(delete(leftovers).where(*same))
