"""Servers of tools that an agent brings along: called by the worker, with a secret of the org."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic_ai.exceptions import ModelHTTPError
from tests.flow.agents.conftest import Stage
from tests.flow.agents.test_loop import ENDPOINT

from runtools.platform.agents.tools import servers
from runtools.platform.agents.tools.servers import MAX_TOOLS, shares
from runtools.platform.kit.outbound import Outbound
from runtools.testing.fake_provider import Flood, provider
from runtools.testing.scripted_model import Call, Do, Script
from runtools.testing.session_server import session_server

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


@pytest.mark.parametrize("end", ["\n", " "])
async def test_a_secret_that_cannot_be_sent_is_told_nobody(stage: Stage, end: str) -> None:
    stage.runs.secrets["BOXES_KEY"] = f"tok-odd-key{end}"
    script = Script(["I cannot"])
    run = await stage.played(script, agent=agent(stage.url))
    said = str(script.asked[0][0].parts[0])
    assert "not to be had: boxes ('its header authorization holds what no header may')" in said
    assert "tok-odd-key" not in said + str(run.log)


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


class TestSessions:
    async def test_there_is_one_for_the_whole_run(self, stage: Stage) -> None:
        count = Call("small__count", {})
        with session_server() as server:
            given = {"mcp_servers": [{"name": "small", "url": server.url}]}
            script = Script([count, Call("small__scold", {})], [count], ["done"])
            run = await stage.played(script, agent=given)
            results = {one["callId"]: one["output"] for one in run.of("tool-result")}
            assert (results["call-0-0"], results["call-1-0"]) == ("1", "2")
            await stage.runs.until(lambda: server.ended)
            assert (server.begun, server.ended, server.sessions) == (1, 1, {})

    async def test_one_that_the_server_forgot_is_begun_anew(self, stage: Stage) -> None:
        count = Call("small__count", {})

        async def forget() -> None:
            server.sessions.clear()

        with session_server() as server:
            given = {"mcp_servers": [{"name": "small", "url": server.url}]}
            script = Script([count], [Do(forget), count], ["done"])
            run = await stage.played(script, agent=given)
            assert [one["output"] for one in run.of("tool-result")] == ["1", "1"]
            assert server.begun == 2


class TestMany:
    async def test_none_is_crowded_out_and_what_is_left_is_told(self, stage: Stage) -> None:
        with session_server() as one, session_server() as other:
            one.more = {f"t{n}": {"type": "object"} for n in range(200)}
            servers = [{"name": "one", "url": one.url}, {"name": "other", "url": other.url}]
            script = Script(["done"])
            await stage.played(script, agent={"mcp_servers": servers})
        offered = [tool.name for tool in script.infos[0].function_tools]
        assert sum(name.startswith("one__") for name in offered) == MAX_TOOLS - 7
        assert sum(name.startswith("other__") for name in offered) == 7
        assert "86 more tools of one (" in str(script.asked[0][0].parts[0])

    async def test_what_cannot_be_told_of_is_counted(self, stage: Stage) -> None:
        """It stands in the instructions, with every question: no server makes them longer than a line."""
        with session_server() as one:
            one.more = {f"{'x' * 70}{n}": {"type": "object"} for n in range(900)}
            script = Script(["done"])
            await stage.played(script, agent={"mcp_servers": [{"name": "one", "url": one.url}]})
        system = str(script.asked[0][0].parts[0])
        assert "not to be had: 899 tools of one (they cannot be told of)." in system

    async def test_those_that_the_server_lacks_are_told(self, stage: Stage) -> None:
        with session_server() as one:
            script = Script(["done"])
            given = {"name": "one", "url": one.url, "tools": ["count", "typo", "tyop"]}
            await stage.played(script, agent={"mcp_servers": [given]})
        system = str(script.asked[0][0].parts[0])
        assert "not to be had: tyop, typo of one (it lists no such tool)." in system
        assert "one__count" in [tool.name for tool in script.infos[0].function_tools]

    async def test_of_those_behind_what_was_read_nobody_says_that_it_lacks_them(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(servers, "_MOST_PAGES", 1)
        with session_server() as one:
            one.more = {"late": {"type": "object"}}
            script = Script(["done"])
            given = {"name": "one", "url": one.url, "tools": ["late"]}
            await stage.played(script, agent={"mcp_servers": [given]})
        system = str(script.asked[0][0].parts[0])
        assert "not to be had: late of one (not among the first that it lists)." in system

    @pytest.mark.parametrize(
        ("counts", "given"),
        [
            ([], []),
            ([3], [3]),
            ([200], [128]),
            ([200, 200], [64, 64]),
            ([500, 2, 500], [63, 2, 63]),
        ],
    )
    async def test_each_has_its_share(self, counts: list[int], given: list[int]) -> None:
        assert shares(counts) == given


class TestSchemas:
    async def test_a_tool_with_one_that_is_none_is_left_out(self, stage: Stage) -> None:
        odd = {"type": "object", "properties": {"a": {"type": "string", "required": True}}}
        with session_server() as server:
            server.more = {"odd": odd, "fit": {"type": "object"}}
            given = {"mcp_servers": [{"name": "small", "url": server.url}]}
            script = Script(["done"])
            run = await stage.played(script, model=ENDPOINT, agent=given)
        assert (run.done["output"], run.of("error")) == ("done", [])
        offered = {tool.name for tool in script.infos[0].function_tools}
        assert {"small__count", "small__fit"} <= offered
        assert "small__odd" not in offered
        system = str(script.asked[0][0].parts[0]).replace("\\", "")
        assert 'small__odd (of the schema of the first: "properties.a.required: it is no ' in system


class TestRefused:
    @pytest.mark.parametrize(
        "words",
        [
            "Invalid schema for function 'small__odd': array schema missing items",
            "tools.{place}.custom.input_schema: JSON schema is invalid",
            "function_declarations[{place}].parameters: should be non-empty",
        ],
    )
    async def test_a_tool_that_the_provider_refuses_is_left_out(
        self, stage: Stage, words: str
    ) -> None:
        def place(script: Script) -> int:
            names = [tool.name for tool in script.infos[0].function_tools]
            return names.index("small__odd")

        with session_server() as server:
            server.more = {"odd": {"type": "object", "properties": {"a": {"type": "array"}}}}
            given = {"mcp_servers": [{"name": "small", "url": server.url}]}
            known = Script(["done"])
            await stage.played(known, model=ENDPOINT, agent=given)
            refused = ModelHTTPError(400, "any", words.format(place=place(known)))
            script = Script([[refused], ["done"]])
            run = await stage.played(script, model=ENDPOINT, agent=given)
        assert run.done["output"] == "done"
        first, second = ([tool.name for tool in info.function_tools] for info in script.infos)
        assert set(first) - set(second) == {"small__odd"}
        system = str(script.asked[1][0].parts[0]).replace("\\", "")
        assert "small__odd (the model's provider refuses" in system
        assert "status 400: " in run.of("error")[0]["message"]

    async def test_where_it_does_not_say_which_all_of_them_are(self, stage: Stage) -> None:
        with session_server() as server:
            given = {"mcp_servers": [{"name": "small", "url": server.url}]}
            refused = ModelHTTPError(400, "any", {"error": {"message": "a tool is no good"}})
            script = Script([[refused], ["done"]])
            front = {"tools": {"where": {"description": "Where the user is."}}}
            run = await stage.played(script, model=ENDPOINT, agent=given, brought=front)
            always = Script([[refused, refused]])
            ends = await stage.played(always, model=ENDPOINT, agent=given)
        assert run.done["output"] == "done"
        assert run.of("error")[0]["message"] == "status 400: a tool is no good"
        first, second = ([tool.name for tool in info.function_tools] for info in script.infos)
        gone = set(first) - set(second)
        assert {"where", "small__count"} <= gone
        assert "bash" in second
        assert ends.done["error"]["code"] == "model_rejected"

    async def test_so_they_are_when_another_lease_offers_them_anew(self, stage: Stage) -> None:
        refused = ModelHTTPError(400, "any", {"error": {"message": "a tool is no good"}})
        call = Call("bash", {"command": "true"})
        with session_server() as server:
            given = {"mcp_servers": [{"name": "small", "url": server.url}]}
            run = stage.make(model=ENDPOINT, agent={**given, "permissions": {"bash": "ask"}})
            script = Script([[refused], [call]], [[refused], ["done"], [refused]])
            stage.worker(script)
            await stage.runs.until(lambda: run.status == "waiting")
            await stage.runs.decide(run, "call-0-0", "allow")
            done = await stage.runs.ended(run)
        assert (done["status"], done["output"]) == ("completed", "done")
        offered = ["small__count" in [one.name for one in x.function_tools] for x in script.infos]
        assert offered == [True, False, True, False]


async def test_a_server_that_is_silent_on_another_lease_is_said_to_be(stage: Stage) -> None:
    call = Call("small__count", {})
    with session_server() as server:
        given = {"mcp_servers": [{"name": "small", "url": server.url}]}
        run = stage.make(agent={**given, "permissions": {"small__*": "ask"}})
        stage.worker(Script([call], ["done"]))
        await stage.runs.until(lambda: run.status == "waiting")
    await stage.runs.decide(run, "call-0-0", "allow")
    await stage.runs.ended(run)
    assert "small did not say which tools it has" in run.of("tool-result")[0]["output"]


async def test_a_cancel_is_heard_while_they_start(stage: Stage) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def never(_reader: Any, writer: Any) -> None:
        begun.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    given = {"mcp_servers": [{"name": "deaf", "url": f"http://127.0.0.1:{port}/mcp"}]}
    script = Script(["never said"])
    run = stage.make(agent=given)
    stage.worker(script)
    await begun.wait()
    await stage.runs.cancel(run)
    assert (await stage.runs.ended(run))["status"] == "cancelled"
    assert script.asked == []  # it ended before the server was given up
    over.set()
    server.close()
    await server.wait_closed()
