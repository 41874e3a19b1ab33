"""All that the database holds of one org, so that a change of anything in it shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Table,
    Text,
    TextClause,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    text,
)

from runtools.platform.api.audit.store import audit
from runtools.platform.api.keys.store import api_keys
from runtools.platform.api.schema import metadata
from runtools.platform.api.templates.store import versions

# What the platform itself changes as time goes by, whoever calls.
_BY_ITSELF = {
    "api_keys": {"last_used_at"},
    # Carried out once it is taken on.
    "deploys": {"state", "done", "lease", "leased_until", "ended_at", "key_id", "sealed"},
    "idempotency": {"data", "request_digest", "status"},  # written once the answer is out
    "sessions": {"seen_at"},
    "webhook_deliveries": {
        "attempts", "error", "finished_at", "lease", "leased_until", "next_at", "state", "status",
    },
}  # fmt: skip

# What its looks at hosts note, whenever they come.
_NOTED = frozenset({"usage_stored"})

NOTHING, BESIDE = literal_column("'NULL'", Text), literal_column("' | '", Text)

Rows = dict[str, frozenset[str]]


def of_org(conn: Connection, org_id: str) -> Rows:
    """Every row that is the org's, or hangs on one that is, but for what changes by itself."""
    return _found(conn, _settled(), org_id)


def whole(conn: Connection, org_id: str) -> Rows:
    """The same with every column but those of what is being sent meanwhile."""
    return _found(conn, _everything(), org_id)


def _found(conn: Connection, look: TextClause, org_id: str) -> Rows:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, row in conn.execute(look, {"org": org_id}):
        found[name].add(row)
    return {table.name: frozenset(found[table.name]) for table in metadata.sorted_tables}


@cache
def _settled() -> TextClause:
    tables = [one for one in metadata.sorted_tables if one.name not in _NOTED]
    return _look(tables, _BY_ITSELF)


@cache
def _everything() -> TextClause:
    sent = {"webhook_deliveries": _BY_ITSELF["webhook_deliveries"]}
    return _look(metadata.sorted_tables, sent)


def _look(tables: Iterable[Table], without: Mapping[str, Collection[str]]) -> TextClause:
    """One statement that finds all rows, each as its table and a text: it is asked thousands of times."""
    parts: list[str] = []
    for table in tables:
        row: ColumnElement[str] = literal_column("''", Text)
        for column in table.c:
            if column.name not in without.get(table.name, ()):
                row = row + func.coalesce(cast(column, Text), NOTHING) + BESIDE
        name: ColumnElement[str] = literal_column(f"'{table.name}'", Text)
        org = bindparam("org", type_=Text)
        parts += [str(select(name, row).where(one)) for one in belongs(table, org)]
    return text(" UNION ALL ".join(parts))


def builds(conn: Connection, org_id: str) -> bool:
    """Whether a template of the org is being built: its row changes until it is."""
    under_way = versions.c.org_id == org_id, versions.c.state == "building"
    return conn.execute(select(versions.c.id).where(*under_way).limit(1)).first() is not None


def told(conn: Connection, request_id: str) -> list[tuple[str | None, str, str | None, int | None]]:
    """What the audit log says of a request: in whose log, what was done, to what, and the answer."""
    query = select(audit.c.org_id, audit.c.action, audit.c.resource, audit.c.status)
    found = conn.execute(query.where(audit.c.request_id == request_id))
    return [(row.org_id, row.action, row.resource, row.status) for row in found]


def difference(before: Rows, after: Rows) -> dict[str, list[str]]:
    """What came and went, table by table."""
    return {
        name: sorted(before[name] ^ after[name]) for name in before if before[name] != after[name]
    }


def belongs(table: Table, org_id: str | BindParameter[str]) -> Iterator[Any]:
    """Conditions on the table's rows, any of which makes a row the org's."""
    if table.name == "orgs":
        yield table.c.id == org_id
    elif table is audit:
        # Its own lines may come a moment after what they tell of.
        own = select(api_keys.c.id).where(api_keys.c.org_id == org_id)
        yield (audit.c.org_id == org_id) & audit.c.actor.not_in(own)
    elif "org_id" in table.c:
        yield table.c.org_id == org_id
    else:
        for key in table.foreign_keys:
            parent = key.column.table
            for condition in belongs(parent, org_id):
                yield key.parent.in_(select(key.column).where(condition))
