"""Tools that a run's front end brings along and carries out, as the loop has them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.flow.agents.conftest import Stage

from runtools.testing.scripted_model import Call, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROUGHT: dict[str, Any] = {
    "tools": {
        "where": {"description": "Where the user is."},
        "hidden": {"description": "Not for this agent."},
        "bash": {"description": "Not its own."},
    },
    "context": [{"description": "the page", "value": "/orders"}],
}


async def test_a_call_of_one_waits_without_a_worker(stage: Stage) -> None:
    both = [Call("where", {"exactly": True}), Call("bash", {"command": "echo here"})]
    script = Script(both, [Call("where", {})], [Call("hidden", {})], ["done"])
    agent = {"permissions": {"hidden": "deny", "*": "ask", "bash": "allow"}}
    run = stage.make(agent=agent, brought=BROUGHT)
    worker, _ = stage.worker(script)
    await stage.runs.until(lambda: run.status == "waiting")
    await stage.runs.until(lambda: worker.runs == 0)
    assert [call.get("front") for call in run.of("tool-call")] == [True, False]
    assert [one["name"] for one in run.of("tool-result")] == ["bash"]
    assert "approval-requested" not in run.types()  # the front end asks its user itself
    await stage.runs.give(run, "call-0-0", "where", "Bern")
    await stage.runs.until(lambda: run.status == "waiting" and len(run.of("tool-call")) == 3)
    await stage.runs.give(run, "call-1-0", "where", "Basel")
    done = await stage.runs.ended(run)
    assert done["output"] == "done"
    assert "hidden may not be used" in run.of("tool-result")[-1]["output"]
    offered = [tool.name for tool in script.infos[0].function_tools]
    assert "where" in offered
    assert "hidden" not in offered
    assert offered.count("bash") == 1
    assert "- the page: /orders" in str(script.asked[0][0].parts[0])
    returned = [str(part) for part in script.asked[1][-1].parts]
    assert any("Bern" in one for one in returned)


async def test_one_that_is_given_up_is_answered_for_the_model(stage: Stage) -> None:
    run = stage.make(brought=BROUGHT)
    stage.worker(Script([Call("where", {})], ["as you like"]))
    await stage.runs.until(lambda: run.status == "waiting")
    await stage.runs.say(run, "never mind", "interrupt")
    done = await stage.runs.ended(run)
    assert done["output"] == "as you like"
    [result] = run.of("tool-result")
    assert result["failed"]


async def test_what_is_no_call_is_not_left_to_the_front_end(stage: Stage) -> None:
    broken = Call("where", raw='{"exactly": tr')
    run = await stage.played(Script([broken], ["sorry"]), brought=BROUGHT)
    [result] = run.of("tool-result")
    assert "no JSON object" in result["output"]
