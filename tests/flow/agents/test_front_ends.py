"""Front ends that exist, with their own code on Node, at a platform with a worker: they work unchanged."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from tests.flow.agents.test_whole import Whole, whole, worker

from runtools.testing.fake_provider import provider
from runtools.testing.scripted_model import Call

NPM = Path(__file__).parents[2] / "npm"
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        NODE is None or not (NPM / "node_modules/ai").exists(), reason="npm ci --prefix tests/npm"
    ),
]
__all__ = ["whole", "worker"]

LOOK = ["I look. ", Call("bash", {"command": "echo two"})]
SAID = ["two\n[exit code 0]", "It is done."]


async def test_they_chat_and_approve(whole: Whole, worker: None) -> None:
    async with provider("chat", LOOK, ["It is done."], LOOK, ["It is done."]) as fake:
        await whole.rt.models.endpoints.create("front", fake.url)
        await whole.deploy(slug="front", model="front:any", permissions={"bash": "ask"})
        key = whole.http.headers["authorization"].removeprefix("Bearer ")
        words = [str(NODE), "front_ends.mjs", whole.url, key, "front"]
        process = await asyncio.create_subprocess_exec(
            *words, cwd=NPM, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(120):
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    chat, agent = told["aiSdk"], told["agUi"]
    assert chat["errors"] == []
    assert chat["asked"] == ["bash"]
    assert chat["outputs"] == [SAID[0]]
    assert chat["texts"] == ["I look. ", SAID[1]]
    assert chat["roles"] == ["user", "assistant"]
    assert chat["threadId"].startswith("thr_")
    assert agent["asked"] == 1
    assert agent["said"] == [
        ["user", "look around"],
        ["assistant", "I look. "],
        ["tool", SAID[0]],
        ["assistant", SAID[1]],
    ]
