"""The loop against llmock, a model server that is not ours: every provider's wire, with a fault."""

from __future__ import annotations

from typing import Any

import pytest
from tests.flow.agents.conftest import Stage

from runtools.platform.agents.models.build import Models
from runtools.platform.core.ports.worker import ModelAccess

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
    # Its server reads and writes through its own thread, which leaves sockets to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

WIRES = [
    ("anthropic", "claude-sonnet-4-5", "anthropic"),
    ("openai", "gpt-5.2", "openai"),
    ("google", "gemini-3-pro-preview", "gemini"),
    ("mistral", "mistral-large-latest", "mistral"),
    ("groq", "llama-3.3-70b-versatile", "groq"),
    ("xai", "grok-4", "xai"),
    ("deepseek", "deepseek-chat", "openai"),
]


@pytest.mark.parametrize(("name", "api_id", "base"), WIRES)
async def test_a_tool_is_called_and_the_run_ends(
    stage: Stage, models: Models, llmock: Any, name: str, api_id: str, base: str
) -> None:
    llmock.rate_limit(times=1, retry_after=0.1)
    url = llmock.base_url(base)
    if name == "mistral":
        url = url.removesuffix("/v1")
    run = stage.make(
        "list_directory: list the folder, please",
        model=ModelAccess(provider=name, api_id=api_id, base_url=url, api_key="test"),
        agent={"permissions": {"*": "deny", "list_directory": "allow"}},
    )
    stage.worker(models.build)
    done = await stage.runs.ended(run)
    assert done["status"] == "completed", done
    assert [one["name"] for one in run.of("tool-call")] == ["list_directory"]
    assert run.of("error")[0]["code"] == "model_rate_limited"
    assert done["output"]
