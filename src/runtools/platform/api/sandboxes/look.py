"""A sandbox's row as the API shows it."""

from __future__ import annotations

from dataclasses import fields

from runtools.platform.api.sandboxes.tables import Entry, Keep, Record
from runtools.platform.kit.http import one
from runtools.sdk.shapes.sandboxes import LedgerEntry, Sandbox, Snapshot

_SHOWN = tuple(Sandbox.model_fields)
_SNAPSHOT_SHOWN = tuple(Snapshot.model_fields)

assert set(_SHOWN) <= {field.name for field in fields(Record)}  # noqa: S101 - at import, not at 3 a.m.


def shape(record: Record) -> Sandbox:
    """The row as the public shape."""
    return Sandbox.model_validate({name: getattr(record, name) for name in _SHOWN})


def look(record: Record) -> bytes:
    """The row as the public shape's JSON."""
    return one(shape(record))


def entry(line: Entry) -> LedgerEntry:
    """A ledger line as the public shape."""
    return LedgerEntry(
        seq=line.id,
        at=line.at,
        sandbox_id=line.sandbox_id,
        state=line.state,
        operation=line.operation,
        cause=line.cause,
        actor=line.actor,
        detail=line.detail,
    )


def snapshot(keep: Keep) -> Snapshot:
    """A snapshot's row as the public shape."""
    return Snapshot.model_validate({name: getattr(keep, name) for name in _SNAPSHOT_SHOWN})
