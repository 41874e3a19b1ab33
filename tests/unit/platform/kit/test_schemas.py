"""JSON Schemas that somebody sent."""

from __future__ import annotations

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.kit.schemas import Schemas


async def test_a_reference_elsewhere_is_said_to_be_followed_nowhere() -> None:
    for reference in ("https://example.org/a", "other.json#/$defs/a"):
        schema = {"type": "object", "properties": {"n": {"$ref": reference}}}
        with pytest.raises(InvalidRequest, match="leads elsewhere, and only a reference within"):
            await Schemas().check({"parameters": schema})
    within = {"$defs": {"a": {"type": "string"}}, "properties": {"n": {"$ref": "#/$defs/a"}}}
    await Schemas().check({"parameters": within})


async def test_all_that_are_none_are_named_and_the_others_known() -> None:
    good, bad = {"type": "object"}, {"type": "object", "required": True}
    faults = await Schemas().faulty({"a": bad, "b": good, "c": {"type": 7}})
    assert {name: where for name, (where, _) in faults.items()} == {
        "a": ["required"],
        "c": ["type"],
    }
    assert all(why.startswith("it is no JSON Schema: ") for _, why in faults.values())
