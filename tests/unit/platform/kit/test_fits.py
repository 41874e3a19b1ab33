"""What in a schema is a reference, and what only looks like one."""

from __future__ import annotations

from typing import Any

import pytest

from runtools.platform.kit import fits

NOWHERE = {"$ref": "#/nope"}


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [NOWHERE]},
        {"const": NOWHERE},
        {"default": NOWHERE},
        {"examples": [NOWHERE]},
        {"properties": {"a": {"const": {"deep": [NOWHERE]}}}},
    ],
)
def test_what_is_data_refers_to_nothing(schema: dict[str, Any]) -> None:
    assert fits._wrong(schema) is None


def test_a_property_that_is_called_id_names_nothing() -> None:
    assert fits._wrong({"properties": {"$id": {"type": "string"}, "a": NOWHERE}}) is not None


def test_a_property_with_the_name_of_data_is_looked_at() -> None:
    for name in ("const", "enum", "default", "examples"):
        assert fits._wrong({"properties": {name: NOWHERE}}) is not None
