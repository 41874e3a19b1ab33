"""What lies below `/parts/` opens to parts of the platform alone, and to each of them its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from fastapi.routing import APIRoute, APIWebSocketRoute

from runtools.errors import Forbidden
from runtools.platform.api import guard
from runtools.platform.api.app import without_platform
from runtools.platform.core.access import PARTS, Caller
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World, client
from runtools.testing.made_once import sqlite_url

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = without_platform()
ROUTES = [
    route
    for route in APP.routes
    if isinstance(route, APIRoute | APIWebSocketRoute) and route.path.startswith(guard.PARTS_PATH)
]
PATHS = [*{route.path for route in ROUTES}, "/parts/worker", "/parts/gateway/x", "/parts/nothing"]
SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A running api on SQLite."""
    folder = tmp_path_factory.mktemp("parts")
    async with api_world.world(Database(sqlite_url(folder)), folder) as made:
        yield made


async def _codes(http: httpx.AsyncClient, path: str) -> set[tuple[int, str]]:
    """How a path is answered, by every method and as a WebSocket."""
    answers = [await http.request(method, path) for method in ("GET", "POST", "DELETE")]
    answers.append(await http.get(path, headers=SOCKET))
    return {(one.status_code, one.json()["error"]["message"]) for one in answers}


class TestOthers:
    async def test_no_key_session_or_stranger_learns_what_there_is(self, world: World) -> None:
        admin = await world.person("admin", email="admin@example.org", operator=True)
        refused = {(403, "that is for parts of the platform alone")}
        for http in (world.http, admin.http, await world.stranger()):
            for path in PATHS:
                assert await _codes(http, path) == refused, path

    async def test_without_a_good_token_it_is_as_anywhere(self, world: World) -> None:
        for secret in ("none", "rt_part_" + "x" * 43, world.token("worker")[:-1]):
            async with client(world.url, secret) as http:
                for path in PATHS:
                    assert {status for status, _ in await _codes(http, path)} == {401}, path

    async def test_no_key_is_given_what_parts_may(self, world: World) -> None:
        for scope in PARTS.values():
            body = {"name": "part", "scopes": [scope]}
            answer = await world.http.post("/v1/api-keys", json=body)
            assert answer.status_code == 400, answer.text


class TestParts:
    async def test_a_part_may_do_nothing_else(self, world: World) -> None:
        for part in PARTS:
            async with client(world.url, world.token(part)) as http:
                for path in ("/v1/me", "/v1/orgs", "/v1/sandboxes", "/v1/nothing"):
                    answer = await http.get(path)
                    assert answer.status_code == 403, path
                    assert f"the part {part}" in answer.json()["error"]["message"]

    async def test_a_part_is_let_in_to_its_own(self, world: World) -> None:
        async with client(world.url, world.token("worker")) as http:
            answer = await http.get("/parts/nothing")
        assert answer.json()["error"]["code"] == "not_found"

    async def test_a_part_is_no_other(self) -> None:
        route = APIWebSocketRoute("/parts/worker", lambda: None)
        held = frozenset({PARTS["gateway"]})
        with pytest.raises(Forbidden, match="gateway"):
            guard.check(Caller("part", "gateway", "", None, held), route)
        guard.check(Caller("part", "worker", "", None, frozenset({PARTS["worker"]})), route)


class TestDocument:
    async def test_the_public_document_says_nothing_of_them(self) -> None:
        assert [path for path in APP.openapi()["paths"] if path.startswith("/parts")] == []

    async def test_each_of_them_is_a_parts(self) -> None:
        assert {guard.needed(route) for route in ROUTES} <= set(PARTS.values())
