"""Store functions called with one org and the other's records, in transactions that are rolled back.

With the stranger's org each must answer as it does for what nobody has, change nothing of the owner's, and
ask the database for nothing without naming an org. With the owner's org it must find or change something:
else the probe would show nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, cast

from sqlalchemy import Connection, Table, event, select
from sqlalchemy.exc import IntegrityError

from runtools.errors import RunToolsError
from runtools.platform.api.audit.store import Sought
from runtools.platform.api.idempotency.store import Remembered
from runtools.platform.api.runs import store as runs
from runtools.platform.api.sandboxes.store import Filter
from runtools.platform.api.schema import metadata
from runtools.platform.api.threads import store as threads
from runtools.platform.core.runs import OPEN
from runtools.platform.kit.db import Database
from runtools.sdk.shapes.limits import Amounts
from runtools.testing.tenancy import rows
from runtools.testing.tenancy.answers import ID
from runtools.testing.tenancy.stores import Method
from runtools.testing.tenancy.walk import nobodys

# What a parameter is given, whatever the store; a callable is asked of the owner's rows.
_ALWAYS: Mapping[str, Any] = {
    "after": None,
    "asked": Amounts(sandboxes=1),
    "category": None,
    "data": "{}",
    "default": False,
    "kind": "sandboxes",
    "limit": 100,
    "now": datetime(2026, 1, 1, tzinfo=UTC),
    "project_id": None,
    "role": "admin",
    "sought": Sought(),
    "standard": Amounts(sandboxes=1),
    "status": 200,
    "values": {"sandboxes": 5},
    "wanted": Filter(),
}
# Where a store's parameter is a column of another name, of another table, or something special.
_COLUMNS: Mapping[str, tuple[str, str]] = {
    "dev_urls.op": ("dev_url_links", "op"),
    "dev_urls.sandbox_id": ("dev_url_links", "sandbox_id"),
    "keys.key_id": ("api_keys", "id"),
    "keys.maker": ("api_keys", "created_by"),
    "keys.op": ("api_keys", "op"),
    "definitions.project_id": ("definitions", "project_id"),
    "definitions.ids": ("runs", "agent_id"),
    "limits.but": ("sandboxes", "id"),
    "ledger.sandbox_id": ("sandboxes", "id"),
    "projects.ids": ("sandboxes", "id"),
    "projects.project_id": ("projects", "id"),
    "projects.sandbox_id": ("definitions", "sandbox_id"),
    "projects.source": ("projects", "id"),
    "projects.target": ("ssh_keys", "project_id"),
    "runs.having.key": ("run_events", "key"),
    "sandboxes.op": ("sandboxes", "born_op"),
    "secrets.names": ("secrets", "name"),
    "snapshots.dropped_by.op": ("snapshots", "drop_op"),
    "snapshots.sandbox_id": ("snapshots", "sandbox_id"),
    "templates.dropped_by.op": ("template_versions", "drop_op"),
    "ssh_keys.makers": ("ssh_keys", "created_by"),
    "templates.op": ("template_versions", "op"),
    "webhooks.delivery_id": ("webhook_deliveries", "id"),
}
_SPECIAL: Mapping[str, Any] = {
    "definitions.after": ("", ""),
    "definitions.below": 1000,
    "definitions.kind": "sandbox",
    "definitions.named": 1,
    "definitions.number": 1,
    "deploys.before": None,
    "dev_urls.access": "private",
    "dev_urls.port": 3000,
    "idempotency.answered": Remembered("0" * 64, "opn_another", 200, "{}"),
    "invitations.before": None,
    "keys.before": None,
    "ledger.after": 0,
    "members.after": None,
    "orgs.name": "another name",
    "projects.after": None,
    "secrets.after": "",
    "ssh_keys.after": "",
    "logs.before": None,
    "logs.events.after": 0,
    "logs.types": ("message",),
    "runs.above": None,
    "runs.after": 0,
    "runs.below": None,
    "runs.month": "2026-11",
    "runs.sought": runs.Sought(),
    "runs.types": ("message",),
    "templates.number": None,
    "threads.below": None,
    "threads.sought": threads.Sought(),
    "threads.title": "another title",
    "usage.after": "",
    "usage.since": datetime(2020, 1, 1, tzinfo=UTC),
    "usage.until": datetime(2100, 1, 1, tzinfo=UTC),
}
_LISTS = frozenset({"agents", "but", "ids", "makers", "names"})
# Those that neither find nor change anything: a lock.
EFFECTLESS = frozenset({"orgs.lock"})
_NAMES_ORG = re.compile(
    r"\b(?:WHERE\b.*\b(?:org_id|orgs\.id)|INSERT INTO .*\borg_id|INTO orgs)\b", re.S
)


class _Back(Exception):
    def __init__(self, found: Outcome) -> None:
        super().__init__()
        self.found = found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: its result, what it changed of the owner's, what it asked the database."""

    result: Any
    changed: Mapping[str, Any]
    statements: tuple[str, ...]

    @property
    def text(self) -> str:
        """The result, to compare."""
        return repr(self.result)


async def faults(db: Database, method: Method, owner: str, stranger: str) -> list[str]:
    """What is wrong with a function that is given an org."""
    before = await db.read(rows.whole, owner)

    async def tried(org_id: str, given: Mapping[str, Any]) -> Outcome:
        try:
            await db.write(_try, method, org_id, given, owner, before)
        except _Back as back:
            return back.found
        raise AssertionError("unreachable")

    theirs = await db.read(_arguments, method, owner, stranger)
    nobody = {name: _nobodys(method, name, value) for name, value in theirs.items()}
    mine = await tried(owner, theirs)
    asked, blank = await tried(stranger, theirs), await tried(stranger, nobody)
    found = []
    if not (mine.result or mine.changed or method.full in EFFECTLESS):
        found.append(f"{method.full}: its owner finds nothing, so it shows nothing: {theirs}")
    if asked.changed:
        found.append(f"{method.full}: a stranger changed {asked.changed}")
    if _without(asked.text, theirs) != _without(blank.text, nobody):
        found.append(f"{method.full}: {asked.text}, of nobody's {blank.text}")
    if leaked := set(ID.findall(asked.text)) & set(ID.findall(mine.text)) - _words(theirs):
        found.append(f"{method.full}: tells a stranger of {leaked}")
    bare = [one for one in asked.statements if not _NAMES_ORG.search(one)]
    return found + [f"{method.full}: asks for records of any org: {one}" for one in bare]


def _try(
    conn: Connection,
    method: Method,
    org_id: str,
    given: Mapping[str, Any],
    owner: str,
    before: rows.Rows,
) -> None:
    statements: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "SAVEPOINT" not in statement:
            statements.append(statement)

    event.listen(conn, "before_cursor_execute", note)
    try:
        with conn.begin_nested():
            result: Any = method.call(conn, **{**given, "org_id": org_id})
    except RunToolsError as error:
        result = (type(error).__name__, str(error), error.details)
    except IntegrityError:
        result = "it is there already"
    finally:
        event.remove(conn, "before_cursor_execute", note)
    shows = org_id == owner and result
    changed = {} if shows else rows.difference(before, rows.whole(conn, owner))
    raise _Back(Outcome(result, changed, tuple(statements)))


def _arguments(conn: Connection, method: Method, owner: str, stranger: str) -> dict[str, Any]:
    parameters = inspect.signature(method.call).parameters
    found: dict[str, Any] = {}
    for name in method.parameters:
        if name == "org_id":
            continue
        value = _argument(conn, method, name, owner, stranger)
        found[name] = [value] if name in _LISTS else value
        if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            raise TypeError(f"{method.full}: {name} cannot be given")
    return found


def _argument(conn: Connection, method: Method, name: str, owner: str, stranger: str) -> Any:
    special = f"{method.module}.{name}"
    if special in _SPECIAL:
        return _SPECIAL[special]
    if special not in _COLUMNS and name in _ALWAYS:
        return _ALWAYS[name]
    table, column = _COLUMNS.get(f"{method.full}.{name}", _COLUMNS.get(special, (None, name)))
    return _value(conn, _table(method, table), column, owner, stranger)


def _table(method: Method, name: str | None) -> Table:
    if name is not None:
        return metadata.tables[name]
    module = vars(import_module(method.call.__module__))
    if isinstance(module.get(method.module), Table):
        return cast("Table", module[method.module])
    own = [one for one in module.values() if isinstance(one, Table) and "org_id" in one.c]
    return own[0] if own else metadata.tables["orgs"]


def _value(conn: Connection, table: Table, column: str, owner: str, stranger: str) -> Any:
    """The column in a row of the owner's, not as any of the stranger's; what is no column is its id."""
    if column not in table.c:
        column = "id"
    wanted = table.c[column]
    query, theirs = select(wanted).where(wanted.is_not(None)), select(wanted)
    for condition in rows.belongs(table, owner):
        query = query.where(condition)
    for condition in rows.belongs(table, stranger):
        theirs = theirs.where(condition)
    query = query.where(wanted.not_in(theirs.where(wanted.is_not(None))))
    if table.name == "definitions":
        query = query.where(table.c.kind == "sandbox")
    if table.name == "runs":
        query = query.where(table.c.status.in_(OPEN)).order_by(table.c.id)
    if table.name == "run_events":
        query = query.order_by(table.c.run_id)  # one of the run that is chosen from `runs`
    if "is_default" in table.c:
        query = query.where(~table.c.is_default)
    if "state" in table.c and column != "drop_op":
        query = query.where(table.c.state != "dropped")
    value = conn.scalar(query.limit(1))
    assert value is not None, f"the owner has no row of {table.name} with {column}"
    return value


def _nobodys(method: Method, name: str, value: Any) -> Any:
    """What nobody has: only where the value names a record."""
    if f"{method.module}.{name}" in _SPECIAL or value is _ALWAYS.get(name, _ALWAYS):
        return value
    if isinstance(value, list):
        return [nobodys(one) for one in value]
    return nobodys(value) if isinstance(value, str) else value


def _words(given: Mapping[str, Any]) -> set[str]:
    listed = [value if isinstance(value, list) else [value] for value in given.values()]
    return {one for values in listed for one in values if isinstance(one, str) and one}


def _without(text: str, given: Mapping[str, Any]) -> str:
    for word in sorted(_words(given), key=len, reverse=True):
        text = text.replace(word, "…")
    return text
