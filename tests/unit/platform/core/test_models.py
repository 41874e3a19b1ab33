"""The catalogue of models: what each name stands for."""

from __future__ import annotations

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.core.models import MODELS, PROVIDERS, choose, parts_of, published

SPECIFIED = (
    "claude-opus-4.6", "claude-opus-4.5", "claude-sonnet-4.5", "claude-sonnet-4", "claude-haiku",
    "gpt-5.2", "gpt-5.2-pro", "gpt-5", "gpt-5-mini", "gpt-4.1", "o4-mini",
    "gemini-3-pro", "gemini-3-flash", "gemini-2-flash", "grok-4", "grok-3", "mistral-large",
    "deepseek", "deepseek-reasoner", "llama-4", "llama-3.3-70b",
)  # fmt: skip


class TestCatalogue:
    @pytest.mark.parametrize("alias", SPECIFIED)
    def test_every_model_of_the_specification_is_in_it(self, alias: str) -> None:
        chosen = choose(alias)
        assert chosen.model is MODELS[alias]
        assert chosen.provider in PROVIDERS

    def test_no_two_entries_are_one_model(self) -> None:
        seen = {(model.provider, model.api_id) for model in MODELS.values()}
        assert len(seen) == len(MODELS)

    def test_only_the_offline_model_needs_no_key(self) -> None:
        assert [slug for slug, provider in PROVIDERS.items() if provider.key is None] == ["demo"]


class TestChoose:
    def test_a_provider_and_any_id_of_it(self) -> None:
        chosen = choose("openai:gpt-99:preview")
        assert (chosen.provider, chosen.api_id, chosen.model) == ("openai", "gpt-99:preview", None)

    def test_an_id_that_the_catalogue_knows(self) -> None:
        assert choose("anthropic:claude-sonnet-4-0").model is MODELS["claude-sonnet-4"]

    @pytest.mark.parametrize(
        ("name", "alias"),
        [
            ("anthropic:claude-sonnet-4-20250514", "claude-sonnet-4"),
            ("anthropic:claude-sonnet-4", "claude-sonnet-4"),
            ("anthropic:claude-sonnet-4-5-20250929", "claude-sonnet-4.5"),
            ("anthropic:claude-haiku-4-5@20251001", "claude-haiku"),
            ("openai:gpt-5-2025-08-07", "gpt-5"),
            ("openai:o4-mini-2025-04-16", "o4-mini"),
        ],
    )
    def test_one_with_a_date_is_the_same_model(self, name: str, alias: str) -> None:
        chosen = choose(name)
        assert chosen.model is MODELS[alias]
        assert chosen.api_id == name.partition(":")[2]  # and is asked for as it was named
        assert published(f"some/{chosen.api_id}") is MODELS[alias]

    @pytest.mark.parametrize("api_id", ["claude-opus-4-20250514", "claude-opus-4-1-20250805"])
    def test_what_is_not_listed_is_known_all_the_same(self, api_id: str) -> None:
        known = choose(f"anthropic:{api_id}").model
        assert known is not None
        assert (known.context_window, known.max_output) == (200_000, 32_000)
        assert known.alias not in MODELS

    @pytest.mark.parametrize(
        "api_id",
        [
            "claude-sonnet-4-6",
            "claude-sonnet-4-6-20260101",
            "claude-opus-4-7",
            "claude-sonnet-4-20250514-v2",
            "claude-sonnet-4-2025",
            "claude-sonnet-40",
        ],
    )
    def test_what_only_begins_alike_is_another_model(self, api_id: str) -> None:
        assert choose(f"anthropic:{api_id}").model is None

    def test_an_endpoint_of_the_org(self) -> None:
        chosen = choose("ollama:qwen3:8b", ["ollama"])
        assert (chosen.provider, chosen.api_id, chosen.model) == ("ollama", "qwen3:8b", None)

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("claude-sonet-4", "claude-sonnet-4"),
            ("Claude-Opus-4.6", "claude-opus-4.6"),
            ("gpt5", "gpt-5"),
            ("anthropc:x", "anthropic"),
            ("olama:x", "ollama"),
        ],
    )
    def test_what_is_misspelt_gets_suggestions(self, name: str, near: str) -> None:
        with pytest.raises(InvalidRequest) as told:
            choose(name, ["ollama"])
        assert near in told.value.details["near"]
        assert near in str(told.value.hint)

    @pytest.mark.parametrize("name", ["", "zzzzzz", "demo:x", "nobody:x"])
    def test_what_is_like_nothing_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidRequest, match=r"runtools models lists|did you mean"):
            choose(name)

    @pytest.mark.parametrize(
        "name", ["openai:", "openai:a b", "openai:\x00", f"openai:{'x' * 201}"]
    )
    def test_an_id_that_is_none(self, name: str) -> None:
        with pytest.raises(InvalidRequest, match="names no model"):
            choose(name)


def test_the_parts_of_a_name_are_what_it_was_chosen_for() -> None:
    for name in [*MODELS, "openai:gpt-next", "gate:qwen3:8b"]:
        chosen = choose(name, ["gate"])
        assert parts_of(name) == (chosen.provider, chosen.api_id)
