"""Holds every transaction of an api under test to it: one that ends or changes keys says so in the count.

What believes keys (`callers.known`) hears of it by nothing else.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, event

from runtools.platform.kit.db import Database

_CHANGES = re.compile(
    r"\s*UPDATE\s+api_keys\s+SET\s+(.*?)(?:\s+WHERE\s|\s+RETURNING\s|\s*$)", re.S | re.I
)
_ENDS = re.compile(r"\s*DELETE\s+FROM\s+api_keys\b", re.I)
_COUNTS = re.compile(r"\s*UPDATE\s+key_revocations\b", re.I)
# What nobody who is let in bears.
_ASIDE = frozenset({"last_used_at", "name", "project_id"})


class Revocations:
    """What one database's writers did to keys without counting it."""

    def __init__(self, db: Database) -> None:
        self.faults: list[str] = []
        self._open: dict[Connection, list[str]] = {}
        writer = db._writer  # noqa: SLF001 - nobody but a test has anything to do with it
        event.listen(writer, "after_cursor_execute", self._done)
        event.listen(writer, "commit", self._committed)
        event.listen(writer, "rollback", lambda conn: self._open.pop(conn, None))

    def _done(self, conn: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if _COUNTS.match(statement) or (_touches(statement) and cursor.rowcount != 0):
            self._open.setdefault(conn, []).append(statement)

    def _committed(self, conn: Connection) -> None:
        done = self._open.pop(conn, [])
        if done and not any(_COUNTS.match(one) for one in done):
            self.faults += [
                f"keys are ended or changed, and nobody hears of it: {one}" for one in done
            ]


def _touches(statement: str) -> bool:
    if _ENDS.match(statement):
        return True
    changes = _CHANGES.match(statement)
    if changes is None:
        return False
    names = {one.partition("=")[0].strip().strip('"').lower() for one in changes[1].split(",")}
    return not names <= _ASIDE
