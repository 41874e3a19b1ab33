"""The loop against aimock, another model server that is not ours: a server on Node, in each wire it speaks.

Of Mistral's stream it lacks the form that the provider's own client reads; `test_providers` plays that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.flow.agents.conftest import Stage

from runtools.platform.agents.models.build import Models
from runtools.platform.core.ports.worker import ModelAccess
from runtools.testing import node

AIMOCK = node.NPM / "node_modules/@copilotkit/aimock/dist/cli.js"
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not node.has("@copilotkit/aimock"), reason="./dev test fetches it"),
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
    # It calls an end with calls by a name that Gemini has not; the client says so and goes on.
    pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid:UserWarning"),
]

LOOK = [
    {"name": "list_directory", "arguments": {}},
    {"name": "bash", "arguments": {"command": "echo two"}},
]
FIXTURES = [
    {
        "match": {"userMessage": "look around", "hasToolResult": False},
        "response": {"reasoning": "let me see", "toolCalls": LOOK},
    },
    {
        "match": {"userMessage": "look around", "hasToolResult": True},
        "response": {"content": "It is done."},
    },
    {
        "match": {"userMessage": "who are you"},
        "response": {"error": {"message": "no such key", "type": "x"}, "status": 401},
    },
]
WIRES = [
    ("anthropic", "claude-sonnet-4-5", ""),
    ("openai", "gpt-5.2", "/v1"),
    ("google", "gemini-3-pro-preview", ""),
    ("xai", "grok-4", "/v1"),
    ("deepseek", "deepseek-reasoner", "/v1"),
    ("groq", "llama-3.3-70b-versatile", "/v1"),
    ("ollama", "qwen3:8b", "/v1"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aimock(tmp_path_factory: Any) -> AsyncIterator[str]:
    """The server, until the module's tests are over: where it listens."""
    script: Path = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    script.write_text(json.dumps({"fixtures": FIXTURES}))
    words = [str(node.NODE), str(AIMOCK), "--port", "0", "--fixtures", str(script), "--strict"]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while "listening on " not in (line := (await process.stdout.readline()).decode()):
            assert line, "it ended"
    reading = asyncio.create_task(process.stdout.read())
    yield line.split("listening on ")[1].strip()
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    await reading


@pytest.mark.parametrize(("name", "api_id", "base"), WIRES)
async def test_it_thinks_and_calls_side_by_side(
    stage: Stage, models: Models, aimock: str, name: str, api_id: str, base: str
) -> None:
    url = f"{aimock}{base}"
    run = stage.make(
        "look around",
        model=ModelAccess(provider=name, api_id=api_id, base_url=url, api_key="test"),
    )
    stage.worker(models.build)
    done = await stage.runs.ended(run)
    assert done["output"] == "It is done.", done
    assert [one["name"] for one in run.of("tool-call")] == ["list_directory", "bash"]
    assert not any(one["failed"] for one in run.of("tool-result"))
    assert run.of("message")[1]["thinking"] == "let me see"


@pytest.mark.parametrize(("name", "api_id", "base"), WIRES)
async def test_what_it_refuses_has_a_meaning(
    stage: Stage, models: Models, aimock: str, name: str, api_id: str, base: str
) -> None:
    access = ModelAccess(provider=name, api_id=api_id, base_url=f"{aimock}{base}", api_key="test")
    run = stage.make("who are you", model=access)
    stage.worker(models.build)
    assert (await stage.runs.ended(run))["error"]["code"] == "model_unauthorized"
