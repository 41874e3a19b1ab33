"""Servers of tools that an agent brings along: called by the worker, with a secret of the org."""

from __future__ import annotations

import pytest
from tests.flow.agents.conftest import Stage

from runtools.platform.kit.outbound import Outbound
from runtools.testing.fake_provider import Flood, provider
from runtools.testing.scripted_model import Call, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


def agent(url: str, **more: object) -> dict[str, object]:
    """One that brings the platform's own server along."""
    server = {"name": "boxes", "url": f"{url}/mcp", "secret": "BOXES_KEY", **more}
    return {"mcp_servers": [server]}


async def test_its_tools_are_offered_and_called(stage: Stage) -> None:
    stage.runs.secrets["BOXES_KEY"] = stage.key
    script = Script(
        [Call("boxes__sandbox_list", {})], [Call("boxes__bash", {"line": "x"})], ["done"]
    )
    run = await stage.played(script, agent=agent(stage.url))
    offered = {tool.name for tool in script.infos[0].function_tools}
    assert {"bash", "boxes__bash", "boxes__sandbox_create"} <= offered
    listed, wrong = run.of("tool-result")
    assert stage.sandbox.id in listed["output"]
    assert not listed["failed"]
    assert wrong["failed"]
    assert stage.key not in str(run.log)


async def test_only_those_that_are_named(stage: Stage) -> None:
    stage.runs.secrets["BOXES_KEY"] = stage.key
    script = Script([Call("boxes__bash", {})], ["done"])
    run = await stage.played(script, agent=agent(stage.url, tools=["sandbox_list"]))
    offered = [tool.name for tool in script.infos[0].function_tools if "boxes" in tool.name]
    assert offered == ["boxes__sandbox_list"]
    assert "there is no tool" in run.of("tool-result")[0]["output"]


async def test_one_that_cannot_be_asked_is_told_of(stage: Stage) -> None:
    stage.runs.secrets["BOXES_KEY"] = "rt_live_wrong"
    script = Script(["I cannot"])
    run = await stage.played(script, agent=agent(stage.url))
    assert run.done["status"] == "completed"
    assert "not to be had: boxes (" in str(script.asked[0][0].parts[0])


async def test_addresses_are_checked(stage: Stage) -> None:
    stage.outbound.close()
    stage.outbound = Outbound()
    stage.runs.secrets["BOXES_KEY"] = stage.key
    script = Script(["I cannot"])
    await stage.played(script, agent=agent(stage.url))
    assert "is not public" in str(script.asked[0][0].parts[0])


async def test_one_that_never_stops_is_not_heard_to_the_end(stage: Stage) -> None:
    script = Script(["I cannot"])
    async with provider("chat", Flood()) as fake:
        server = {"name": "flood", "url": fake.url}
        run = await stage.played(script, agent={"mcp_servers": [server]})
    assert run.done["status"] == "completed"
    assert "not to be had: flood (" in str(script.asked[0][0].parts[0])
