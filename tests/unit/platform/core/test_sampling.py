"""What Claude does not take of how its answers are chosen."""

from __future__ import annotations

from typing import Any

import pytest

from runtools.platform.core.sampling import clash

NEW, OLD = "claude-sonnet-4-5", "claude-sonnet-4-20250514"


@pytest.mark.parametrize(
    ("api_id", "said", "fields"),
    [
        (NEW, {"thinking": True, "temperature": 0.2}, ("temperature", "thinking")),
        (OLD, {"thinking": "low", "temperature": 0}, ("temperature", "thinking")),
        (NEW, {"thinking": "high", "top_k": 5}, ("top_k", "thinking")),
        (NEW, {"thinking": "max", "top_p": 0.9}, ("top_p", "thinking")),
        (NEW, {"temperature": 0.2, "top_p": 0.9}, ("temperature", "top_p")),
        ("claude-opus-4-1-20250805", {"temperature": 1, "top_p": 1}, ("temperature", "top_p")),
        (NEW, {"thinking": True, "temperature": 1, "top_p": 0.96}, ("temperature", "top_p")),
        (OLD, {"temperature": 1.5}, ("temperature",)),
    ],
)
def test_what_is_refused_names_all_of_it(
    api_id: str, said: dict[str, Any], fields: tuple[str, ...]
) -> None:
    found = clash("anthropic", api_id, said)
    assert found is not None
    assert found.fields == fields
    for name in fields:
        assert name.replace("thinking", "thinks") in found.why


@pytest.mark.parametrize(
    ("api_id", "said"),
    [
        (NEW, {}),
        (NEW, {"temperature": 0.2, "top_k": 5, "thinking": None, "top_p": None}),
        (NEW, {"temperature": 0.2, "top_k": 5, "thinking": False}),
        (NEW, {"thinking": True, "temperature": 1}),
        (NEW, {"thinking": True, "temperature": 1.0}),
        (NEW, {"thinking": True, "top_p": 0.95}),
        (OLD, {"temperature": 0.2, "top_p": 0.9}),
        ("claude-opus-4-0", {"temperature": 0.2, "top_p": 0.9}),
    ],
)
def test_what_it_takes(api_id: str, said: dict[str, Any]) -> None:
    assert clash("anthropic", api_id, said) is None


@pytest.mark.parametrize("provider", ["openai", "google", "gate"])
def test_others_leave_out_what_they_do_not_take(provider: str) -> None:
    said = {"thinking": True, "temperature": 1.5, "top_p": 0.1, "top_k": 3}
    assert clash(provider, NEW, said) is None
