"""A sandbox's row as the API shows it."""

from __future__ import annotations

from dataclasses import fields

from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.kit.http import one
from runtools.sdk.shapes.sandboxes import Sandbox

_SHOWN = tuple(Sandbox.model_fields)

assert set(_SHOWN) <= {field.name for field in fields(Record)}  # noqa: S101 - at import, not at 3 a.m.


def shape(record: Record) -> Sandbox:
    """The row as the public shape."""
    return Sandbox.model_validate({name: getattr(record, name) for name in _SHOWN})


def look(record: Record) -> bytes:
    """The row as the public shape's JSON."""
    return one(shape(record))
