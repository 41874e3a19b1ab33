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
