"""Front ends that exist, with their own code on Node, at a platform with a worker: they work unchanged."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.flow.agents.test_whole import Whole, whole, worker

from runtools.testing import node
from runtools.testing.fake_provider import provider
from runtools.testing.scripted_model import Call

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not node.has("ai"), reason="./dev test fetches it"),
]
__all__ = ["whole", "worker"]

LOOK = ["I look. ", Call("bash", {"command": "echo two"})]
SAID = ["two\n[exit code 0]", "It is done."]
WORK = ["I work. ", Call("bash", {"command": "echo begun; until [ -e go ]; do sleep 0.05; done"})]


async def test_they_chat_and_approve(whole: Whole, worker: None) -> None:
    ends = ["It is done."], ["I see."], ["As you like."]
    looks = [*(one for end in ends for one in (LOOK, end)), WORK, ["Done, I tell you."]]
    page = [["I ask. ", Call("where", {})], ["You are in Bern."]]
    late = [[*WORK, Call("where", {})], ["You are in Bern."]]
    answers = [*looks, LOOK, ["It is done."], LOOK, ["I listen."], *page, *page, *late, *late]
    async with provider("chat", *answers) as fake:
        await whole.rt.models.endpoints.create("front", fake.url)
        await whole.deploy(slug="front", model="front:any", permissions={"bash": "ask"})
        await whole.deploy(slug="works", model="front:any")
        await whole.deploy(slug="asks", model="front:any")
        key = whole.http.headers["authorization"].removeprefix("Bearer ")
        words = [str(node.NODE), "front_ends.mjs", whole.url, key, "front", "works", "asks"]
        process = await asyncio.create_subprocess_exec(
            *words, cwd=node.NPM, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(120):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    chat, agent = told["approves"], told["agUi"]
    assert chat["errors"] == []
    assert chat["asked"] == ["bash"]
    assert chat["outputs"] == [SAID[0]]
    assert chat["texts"] == ["I look. ", SAID[1]]
    assert chat["roles"] == ["user", "assistant"]
    assert chat["threadId"].startswith("thr_")
    assert told["denies"] == {
        "errors": [],
        "states": ["output-denied"],
        "texts": ["I look. ", "I see."],
    }
    assert told["says"] == {  # a word in place of an answer is no error
        "errors": [],
        "asked": ["approval-requested"],
        "status": "ready",
        "texts": ["As you like."],
        "results": [{"toolName": "bash", "failed": True}],
        "roles": ["user", "assistant", "user", "assistant"],
    }
    assert told["stops"] == {  # nor is one while a call of an earlier message is under way
        "errors": [],
        "results": [{"toolName": "bash", "failed": False}],
        "texts": ["Done, I tell you."],
        "resumed": ["Done, I tell you."],
        "same": True,
        "status": "ready",
    }
    assert told["fronts"] == {
        "pending": 1,
        "said": [
            ["user", "where am I?"],
            ["assistant", "I ask. "],
            ["tool", "Bern"],
            ["assistant", "You are in Bern."],
        ],
    }
    assert told["carries"] == {
        "errors": [],
        "texts": ["I ask. ", "You are in Bern."],
        "roles": ["user", "assistant"],
        "tools": [["tool-where", "output-available"]],
    }
    assert told["agUiSays"] == {
        "asked": 1,
        "refused": True,  # by the client itself
        "said": [
            ["user", "look around"],
            ["assistant", "I look. "],
            ["tool", "a person has refused this call"],  # its client puts it behind its call
            ["user", "not that, please"],
            ["assistant", "I listen."],
        ],
        "pending": 0,
    }
    asked = [json.dumps(one.body) for one in fake.asked]
    assert sum("not that, please" in one for one in asked) == 1
    assert sum("a person has refused this call: too much" in one for one in asked) == 1
    assert sum("- the page: /orders" in one for one in asked) == 2
    assert all("Bern" in asked[-n] for n in (1, 3, 5))
    assert told["late"] == {"errors": [], "texts": ["You are in Bern."]}
    assert told["lateToo"]["said"][-1] == ["assistant", "You are in Bern."]
    assert ["tool", "Bern"] in told["lateToo"]["said"]
    assert agent["asked"] == 1
    assert agent["said"] == [
        ["user", "look around"],
        ["assistant", "I look. "],
        ["tool", SAID[0]],
        ["assistant", SAID[1]],
    ]
