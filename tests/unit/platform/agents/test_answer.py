"""What servers of models send, as it can be kept."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart

from runtools.errors import InvalidRequest
from runtools.platform.agents.answer import arguments, text_of, thinking_of, tidy
from runtools.platform.api.runs import rules
from runtools.platform.kit.schemas import faults
from runtools.sdk.shapes.runs import RunRequest

HALF = "\ud83d"


def test_halves_of_characters_are_marked_wherever_they_stand() -> None:
    calls: list[Any] = [
        ToolCallPart("bash", '{"command": "echo \\ud83d", "\\ud83d": ["\\ud83d"]}', "c1"),
        ToolCallPart("bash", {"command": HALF}, "c2"),
    ]
    said = ModelResponse(parts=[ThinkingPart(f"hm {HALF}"), TextPart(f"so {HALF}"), *calls])
    found = tidy(said, set(), 1)
    assert (thinking_of(found), text_of(found)) == ("hm \ufffd", "so \ufffd")
    first, second = (arguments(part) for part in found.parts if isinstance(part, ToolCallPart))
    assert first == {"command": "echo \ufffd", "\ufffd": ["\ufffd"]}
    assert second == {"command": "\ufffd"}


def test_whole_ones_stay() -> None:
    part = TextPart("so 😀")
    assert tidy(ModelResponse(parts=[part]), set(), 1).parts == [part]


def schema(reference: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"n": {"$ref": reference}}}


@pytest.mark.parametrize("reference", ["file:///etc/passwd", "http://127.0.0.1:9/x", "other.json"])
async def test_a_schema_fetches_nothing(reference: str) -> None:
    with pytest.raises(InvalidRequest, match="outputSchema is wrong"):
        await faults(schema(reference), {"n": 1}, "outputSchema")
    wanted = RunRequest(agent_slug="a", message="x", output_schema=schema(reference))
    with pytest.raises(InvalidRequest, match="outputSchema"):
        rules.check(wanted)


async def test_a_schema_may_refer_to_itself() -> None:
    given = schema("#/$defs/n") | {"$defs": {"n": {"type": "integer"}}}
    assert await faults(given, {"n": 1}, "outputSchema") == ""
    assert "is not of type" in await faults(given, {"n": "x"}, "outputSchema")
    rules.check(RunRequest(agent_slug="a", message="x", output_schema=given))


async def test_what_is_nested_without_end_does_not_fit() -> None:
    given: Any = {}
    for _ in range(5000):
        given = {"n": given}
    assert await faults({"type": "object"}, given, "outputSchema") == "it is nested too deeply"


@pytest.mark.parametrize("wrong", [{"type": "odd"}, {"pattern": "("}, {"properties": 3}])
async def test_one_that_means_nothing_is_told_of(wrong: dict[str, Any]) -> None:
    given = (
        {"type": "object", "properties": {"n": wrong}, **wrong} if "type" not in wrong else wrong
    )
    with pytest.raises(InvalidRequest, match="outputSchema is wrong"):
        await faults(given, {"n": "x"}, "outputSchema")
