"""How often an org may ask, and strangers may try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio

from runtools import AsyncRunTools
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World, client
from runtools.testing.made_once import sqlite_url

LIMIT = 60
OPEN = 5


@pytest_asyncio.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[World]:
    """A running api that allows little."""
    db = Database(sqlite_url(tmp_path))
    limits = {"rate_limit": LIMIT, "rate_limit_failed": 3, "limit_open_requests": OPEN}
    async with api_world.world(db, tmp_path, **limits) as made:
        yield made


class TestOrgs:
    async def test_every_answer_tells_and_the_last_one_is_refused(self, narrow: World) -> None:
        seen = []
        while True:
            answer = await narrow.http.get("/v1/me")
            limit = int(answer.headers["X-RateLimit-Limit"])
            remaining = int(answer.headers["X-RateLimit-Remaining"])
            reset = int(answer.headers["X-RateLimit-Reset"])
            now = narrow.platform.clock.now().timestamp()
            assert (limit, 0 <= reset - now <= 62) == (LIMIT, True)
            if answer.status_code == 429:
                break
            seen.append(remaining)
        assert remaining == 0
        assert seen[0] > seen[-1]
        error = answer.json()["error"]
        assert error["code"] == "rate_limited"
        assert answer.headers["Retry-After"] == str(error["details"]["retryAfterSeconds"]) == "1"
        assert error["requestId"] == answer.headers["X-Request-Id"]
        missing = await narrow.http.post("/v1/sandboxes", json={})
        assert missing.status_code == 429
        async with await narrow.stranger() as other:
            assert (await other.get("/v1/me")).status_code == 200

    async def test_only_so_much_may_be_open_at_once(self, narrow: World) -> None:
        async with AsyncExitStack() as followed:
            for _ in range(OPEN):
                stream = narrow.http.stream("GET", "/v1/events?after=0")
                assert (await followed.enter_async_context(stream)).status_code == 200
            refused = await narrow.http.get("/v1/me")
            assert refused.status_code == 429
            error = refused.json()["error"]
            assert (error["code"], error["details"]["max"]) == ("rate_limited", OPEN)
            async with await narrow.stranger() as other:
                assert (await other.get("/v1/me")).status_code == 200
        async with asyncio.timeout(60):
            while (await narrow.http.get("/v1/me")).status_code == 429:
                await asyncio.sleep(0.01)

    async def test_a_stream_is_counted_once(self, narrow: World) -> None:
        async def left() -> int:
            return int((await narrow.http.get("/v1/me")).headers["X-RateLimit-Remaining"])

        before = await left()
        async with narrow.http.stream("GET", "/v1/events?after=0") as stream:
            assert int(stream.headers["X-RateLimit-Remaining"]) >= before - 1
            await narrow.create()
            lines = stream.aiter_lines()
            for _ in range(4):
                await anext(lines)
        assert await left() >= before - 3

    async def test_the_sdk_waits_as_it_is_told(self, narrow: World) -> None:
        while (await narrow.http.get("/v1/me")).status_code == 200:
            pass
        async with AsyncRunTools(narrow.key, narrow.url) as rt:
            assert (await rt.me()).org_id == narrow.org

    async def test_without_a_limit_there_are_no_headers(self, tmp_path: Path) -> None:
        db = Database(sqlite_url(tmp_path))
        async with api_world.world(db, tmp_path, rate_limit=0) as world:
            answer = await world.http.get("/v1/me")
            assert not [name for name in answer.headers if "ratelimit" in name.lower()]

    async def test_health_is_not_counted(self, narrow: World) -> None:
        for _ in range(2 * LIMIT):
            answer = await narrow.http.get("/healthz")
            assert answer.status_code == 200
        assert "X-RateLimit-Limit" not in answer.headers


class TestSources:
    async def test_tries_are_counted(self, narrow: World) -> None:
        async with client(narrow.url, "rt_live_wrong") as http:
            codes = [(await http.get("/v1/me")).status_code for _ in range(5)]
            assert codes == [401, 401, 401, 429, 429]
            answer = await http.get("/v1/me")
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json()["error"]["code"] == "rate_limited"

    async def test_a_good_key_is_never_held_up(self, narrow: World) -> None:
        async with client(narrow.url, "rt_live_wrong") as http:
            for _ in range(6):
                await http.get("/v1/me")
        assert (await narrow.http.get("/v1/me")).status_code == 200
