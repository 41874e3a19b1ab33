"""The MCP server as clients use it: over HTTP with a key, and as a process on stdin and stdout."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from runtools import AsyncRunTools
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import client as http_client
from runtools.testing.local_platform import local_platform
from runtools.testing.made_once import sqlite_url

Mode = Literal["auto", "legacy"]
# Who guesses at the header by which the server says for whom it calls.
FORGED = {"x-runtools-called-for": f"{'0' * 64} 203.0.113.7"}


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """A platform: its URL and the first key."""
    async with local_platform(tmp_path) as made:
        yield made


@asynccontextmanager
async def over_http(
    url: str, key: str, mode: Mode = "auto", peer: str | None = None, **more: Any
) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}", **FORGED, **more}
    way = httpx2.AsyncHTTPTransport(local_address=peer)
    async with httpx2.AsyncClient(
        headers=headers, timeout=60, trust_env=False, transport=way
    ) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as made:
            yield made


def process(url: str, key: str, *more: str) -> StdioServerParameters:
    env = {"RUNTOOLS_API_URL": url, "RUNTOOLS_API_KEY": key, "PATH": os.environ["PATH"]}
    program = str(Path(sys.executable).parent / "runtools")
    return StdioServerParameters(command=program, args=["mcp", *more], env=env)


async def said(client: Client, tool: str, **given: Any) -> str:
    result = await client.call_tool(tool, given)
    assert not result.is_error, result.content
    return text_of(result)


def text_of(result: Any) -> str:
    [content] = result.content
    return str(content.text)


async def test_calls_come_from_who_is_connected(platform: tuple[str, str]) -> None:
    """The audit log has the client's address, not the server's own, and nobody names another."""
    url, key = platform
    async with over_http(url, key, peer="127.0.0.9") as client:
        made = (await said(client, "sandbox_create", name="box")).split()[0]
    async with http_client(url, key) as http:
        await http.delete(f"/v1/sandboxes/{made}", headers=FORGED)
        audited = (await http.get("/v1/audit")).json()["data"]
    sources = {one["action"]: one["source"] for one in audited}
    assert sources["sandboxes.create"] == "127.0.0.9"
    assert sources["sandboxes.destroy"] == "127.0.0.1"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_life_over_http(platform: tuple[str, str], mode: Mode) -> None:
    async with over_http(*platform, mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"sandbox_create", "sandbox_destroy", "bash", "edit_file", "grep"} <= names
        made = await said(client, "sandbox_create", name="box")
        ref = made.split()[0]
        assert made.split()[1:3] == ["box", "running"]
        await said(client, "write_file", sandbox="box", path="a.txt", content="one\n")
        await said(client, "bash", sandbox="box", command="cd /workspace; echo two >> a.txt")
        shown = await said(client, "read_file", sandbox=ref, path="/workspace/a.txt")
        assert shown == "     1\tone\n     2\ttwo"
        await said(client, "sandbox_snapshot", sandbox="box", name="good")
        await said(client, "edit_file", sandbox="box", path="a.txt", old="one", new="1")
        await said(client, "sandbox_rollback", sandbox="box", to="good")
        assert "one" in await said(client, "bash", sandbox="box", command="cat /workspace/a.txt")
        assert "paused" in await said(client, "sandbox_pause", sandbox="box")
        assert "running" in await said(client, "sandbox_resume", sandbox="box")
        address = (await said(client, "get_dev_url", sandbox="box", port=8000)).split("\n")[0]
        assert address.startswith("http")
        assert "8000" in address
        twin = await said(client, "sandbox_fork", sandbox="box", name="twin")
        assert twin.split()[1] == "twin"
        assert len((await said(client, "sandbox_list")).splitlines()) == 2
        for name in ("box", "twin"):
            assert "destroyed" in await said(client, "sandbox_destroy", sandbox=name)


async def test_mistakes_are_results_that_a_model_can_read(platform: tuple[str, str]) -> None:
    async with over_http(*platform) as client:
        for tool, given, told in (
            ("bash", {"command": "true"}, "sandbox: name one"),
            ("bash", {"sandbox": "none", "command": "true"}, "not_found"),
            ("sandbox_create", {"name": "NOT A NAME"}, "invalid_request"),
            ("sandbox_create", {"size": 1}, "size: Extra inputs"),
            ("launch", {}, "no tool 'launch'"),
        ):
            result = await client.call_tool(tool, given)
            assert result.is_error, tool
            assert told in text_of(result)


class TestKeys:
    @pytest.mark.parametrize(
        "headers",
        [{}, {"Authorization": "Bearer rt_live_none"}, {"Authorization": "Basic x"},
         {"X-API-Key": "rt_live_none"}],
    )  # fmt: skip
    async def test_nobody_comes_in_without(
        self, platform: tuple[str, str], headers: dict[str, str]
    ) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        more = {"Accept": "application/json, text/event-stream"}
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{platform[0]}/mcp", json=body, headers=headers | more)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "unauthenticated"
        assert answer.headers["www-authenticate"] == "Bearer"

    async def test_a_tool_does_what_the_key_may_and_it_is_in_the_audit_log(
        self, platform: tuple[str, str]
    ) -> None:
        url, first = platform
        async with http_client(url, first) as http:
            wanted = {"name": "reader", "scopes": ["sandbox:read", "files:read"]}
            answer = await http.post("/v1/api-keys", json=wanted)
            reader = answer.json()["data"]["key"]
            await http.post("/v1/sandboxes", json={"name": "box"})
            async with over_http(url, reader) as client:
                assert "box" in await said(client, "sandbox_list")
                refused = await client.call_tool("bash", {"sandbox": "box", "command": "id"})
                assert refused.is_error
                assert "lacks the scope sandbox:write" in text_of(refused)
            async with over_http(url, first) as client:
                await said(client, "sandbox_destroy", sandbox="box")
            lines = (await http.get("/v1/audit")).json()["data"]
        assert lines[0]["action"] == "sandboxes.destroy"


class TestProcess:
    async def test_a_client_starts_it(self, platform: tuple[str, str]) -> None:
        async with Client(process(*platform)) as client:
            await said(client, "sandbox_create", name="box")
            out = await said(client, "bash", sandbox="box", command="echo hi")
            assert out == "hi\n[exit code 0]"

    async def test_one_sandbox_and_no_other(self, platform: tuple[str, str]) -> None:
        async with over_http(*platform) as client:
            await said(client, "sandbox_create", name="mine")
            await said(client, "sandbox_create", name="other")
        async with Client(process(*platform, "--sandbox", "mine")) as client:
            tools = (await client.list_tools()).tools
            assert not [tool.name for tool in tools if tool.name.startswith("sandbox_")]
            assert all("sandbox" not in tool.input_schema["properties"] for tool in tools)
            await said(client, "bash", command="echo > /workspace/here")
            refused = await client.call_tool("bash", {"sandbox": "other", "command": "id"})
            assert refused.is_error
            assert (await client.call_tool("sandbox_destroy", {"sandbox": "other"})).is_error


async def test_a_trusted_proxy_says_for_whom(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path))
    named: dict[str, Any] = {"X-Forwarded-For": "198.51.100.9"}
    async with api_world.world(database, tmp_path, trusted_proxies="127.0.0.9/32") as world:
        for name, peer in (("proxied", "127.0.0.9"), ("direct", "127.0.0.8")):
            async with over_http(world.url, world.key, peer=peer, **named) as client:
                await said(client, "sandbox_create", name=name)
        audited = (await world.http.get("/v1/audit")).json()["data"]
    made = [one["source"] for one in audited if one["action"] == "sandboxes.create"]
    assert made == ["127.0.0.8", "198.51.100.9"]


async def test_no_room_is_answered_with_the_place_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_url(tmp_path))
    monkeypatch.setattr("runtools.mcp.lives._ROOM_SECONDS", 0.0)
    async with api_world.world(database, tmp_path) as world, over_http(world.url, world.key) as mcp:
        world.host.capacity = 1
        first = await world.create()
        made = await said(mcp, "sandbox_create", name="second")
        assert made.split()[1:3] == ["second", "creating"]

        async def has_its_place() -> bool:
            return "place 1 in the queue" in await said(mcp, "sandbox_list")

        await api_world.holds(has_its_place, api_world.PATIENCE_SECONDS)
        await said(mcp, "sandbox_destroy", sandbox=first["id"])
        await world.becomes(made.split()[0], state="running")


class TestCancel:
    """It reaches the command that a call runs, in each version of the protocol."""

    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_over_stdio(self, platform: tuple[str, str], mode: Mode) -> None:
        async with Client(process(*platform), mode=mode) as client:
            await said(client, "sandbox_create", name="box")
            calling = asyncio.create_task(client.call_tool("bash", LONG))
            await is_running(platform, calling)
            calling.cancel()
            await is_ended(platform)

    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_over_http(self, platform: tuple[str, str], mode: Mode) -> None:
        async with over_http(*platform, mode) as client:
            await said(client, "sandbox_create", name="box")
            calling = asyncio.create_task(client.call_tool("bash", LONG))
            await is_running(platform, calling)
            calling.cancel()
            await is_ended(platform)

    async def test_by_a_note_of_who_made_the_call(self, platform: tuple[str, str]) -> None:
        """Clients of older versions number their calls alike: it is told which of them has sent it."""
        url, key = platform
        async with http_client(url, key) as http:
            await http.post("/v1/sandboxes", json={"name": "box"})
            for version in HANDSHAKE_PROTOCOL_VERSIONS:
                mine, other = [await greeted(http, version) for _ in range(2)]
                calling = asyncio.create_task(
                    told(http, mine, "tools/call", {"name": "bash", "arguments": LONG}, 7)
                )
                await is_running(platform, calling)
                note = {"requestId": 7, "reason": "enough"}
                for nobody in (other, {**mine, "Mcp-Session-Id": "none"}):
                    await told(http, nobody, "notifications/cancelled", note)
                assert await running(platform), version
                await told(http, mine, "notifications/cancelled", note)
                await is_ended(platform)
                async with asyncio.timeout(30):
                    await calling
                refused = await http.get("/mcp", headers=mine)
                assert refused.status_code == 405  # there is nothing to be heard without a question


LONG = {"sandbox": "box", "command": "sleep 600"}


async def greeted(http: httpx.AsyncClient, version: str) -> dict[str, str]:
    """The headers of a client after its first word."""
    headers = {
        "MCP-Protocol-Version": version,
        "Accept": "application/json, text/event-stream",
    }
    who = {"name": "old", "version": "1"}
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": who}
    answer = await told(http, headers, "initialize", hello, 0)
    assert version in answer.text
    named = {**headers, "Mcp-Session-Id": answer.headers["mcp-session-id"]}
    await told(http, named, "notifications/initialized", {})
    return named


async def told(
    http: httpx.AsyncClient,
    headers: dict[str, str],
    method: str,
    params: Any,
    number: int | None = None,
) -> httpx.Response:
    """One request as a client sends it; without a number it is a note."""
    body = {"jsonrpc": "2.0", "method": method, "params": params}
    if number is not None:
        body["id"] = number
    answer = await http.post("/mcp", json=body, headers=headers, timeout=120)
    assert answer.status_code in (200, 202), answer.text
    return answer


async def running(platform: tuple[str, str]) -> list[str]:
    """The processes that run in the sandbox."""
    async with AsyncRunTools(platform[1], platform[0]) as rt:
        found = await (await rt.sandboxes.get("box")).processes.list()
        return [one.id for one in found if one.state == "running"]


async def is_running(platform: tuple[str, str], calling: asyncio.Task[Any]) -> None:
    """Wait until its command runs."""
    async with asyncio.timeout(60):
        while not await running(platform):
            assert not calling.done(), calling.result()
            await asyncio.sleep(0.02)


async def is_ended(platform: tuple[str, str]) -> None:
    """Wait until it does not."""
    async with asyncio.timeout(60):
        while await running(platform):
            await asyncio.sleep(0.02)
