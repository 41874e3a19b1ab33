"""Every provider's wire over real HTTP: thinking, calls side by side, breaks in the middle, 429."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.flow.agents.conftest import Stage

from runtools.platform.agents.models.build import Models
from runtools.platform.agents.models.http import client
from runtools.platform.core.ports.worker import ModelAccess
from runtools.platform.kit.outbound import Outbound
from runtools.testing.fake_provider import (
    IN_TOKENS,
    OUT_TOKENS,
    Break,
    FakeProvider,
    Refuse,
    Wire,
    provider,
)
from runtools.testing.scripted_model import Call, Think

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # Clients of providers say by warnings which models are old; ours is that the wire is understood.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:anthropic"),
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
]

WIRES: list[tuple[str, str, Wire]] = [
    ("anthropic", "claude-sonnet-4-5", "anthropic"),
    ("openai", "gpt-5.2", "openai"),
    ("google", "gemini-3-pro-preview", "google"),
    ("mistral", "mistral-large-latest", "mistral"),
    ("xai", "grok-4", "chat"),
    ("deepseek", "deepseek-reasoner", "chat"),
    ("groq", "llama-3.3-70b-versatile", "chat"),
    ("ollama", "qwen3:8b", "chat"),
]
BOTH = [Call("bash", {"command": "echo one"}), Call("bash", {"command": "echo two"})]
WORK = [Think("let me see"), "I look. ", *BOTH]
AT_ONCE = Refuse(429, [("Retry-After", "0")])


@pytest_asyncio.fixture(loop_scope="module")
async def models(stage: Stage) -> AsyncIterator[Models]:
    """Models that may speak to the loopback."""
    made = Models(lambda: client(stage.outbound))
    yield made
    await made.close()


def access(name: str, api_id: str, fake: FakeProvider) -> ModelAccess:
    """The way to a fake provider."""
    return ModelAccess(provider=name, api_id=api_id, base_url=fake.url, api_key="sk-test-key")


@pytest.mark.parametrize(("name", "api_id", "wire"), WIRES)
async def test_a_run_over_the_wire(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire
) -> None:
    broken = ["I am going to", Break()]
    async with provider(wire, AT_ONCE, broken, WORK, ["It is ", "done."]) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["status"] == "completed", done
        assert done["output"] == "It is done."
        limited, cut = run.of("error")
        assert limited["code"] == "model_rate_limited"
        assert limited["retrying"] <= 0.5
        assert cut["code"] == "model_unavailable"
        assert {one["output"] for one in run.of("tool-result")} == {
            "one\n[exit code 0]",
            "two\n[exit code 0]",
        }
        attempts = [
            (one.data["attempt"], one.data["text"])
            for one in run.deltas
            if one.type == "text-delta"
        ]
        assert attempts[0] == (2, "I am going to")
        assert (3, "I look. ") in attempts
        if wire != "chat" or name == "deepseek":
            assert run.of("message")[1]["thinking"] == "let me see"
            assert ("thinking", "let me see") in [
                (one.type, one.data["text"]) for one in run.deltas
            ]
        usage = done["usage"]
        assert usage["inputTokens"] >= 2 * IN_TOKENS
        assert usage["outputTokens"] >= 2 * OUT_TOKENS
        assert (usage["costUsd"] is None) == (name == "ollama")
        last = json.dumps(fake.asked[-1].body)
        assert "[exit code 0]" in last
        if wire in ("anthropic", "google", "openai"):
            assert "c2lnbmVk" in last  # what the provider signed comes back as it was


@pytest.mark.parametrize(("name", "api_id", "wire"), WIRES[:5])
@pytest.mark.parametrize(
    ("status", "code"), [(401, "model_unauthorized"), (404, "model_not_found")]
)
async def test_what_is_refused_says_why_and_not_by_which_key(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire, status: int, code: str
) -> None:
    body = '{"error": {"type": "x", "message": "no, sk-test-key is not good"}}'
    async with provider(wire, Refuse(status, body=body)) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["error"]["code"] == code
        assert "sk-test-key" not in str(run.log)
        assert len(fake.asked) == 1


async def test_addresses_that_are_not_allowed_are_never_connected_to(stage: Stage) -> None:
    stage.outbound.close()
    stage.outbound = Outbound()
    models = Models(lambda: client(stage.outbound))
    async with provider("chat", ["hi"]) as fake:
        run = stage.make(model=access("mine", "any", fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["status"] == "failed"
        assert done["error"]["code"] == "endpoint_refused"
        assert "is not public" in done["error"]["message"]
        assert fake.asked == []
    await models.close()


async def test_a_provider_without_a_key_is_told_of(stage: Stage, models: Models) -> None:
    run = stage.make(model=ModelAccess(provider="anthropic", api_id="claude-sonnet-4-5"))
    stage.worker(models.build)
    done = await stage.runs.ended(run)
    assert "there is no key for anthropic" in done["error"]["message"]
