"""Streams of what changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runtools.platform.kit import sse
from runtools.testing.api_world import World, client


async def events(answer: httpx.Response) -> AsyncIterator[tuple[int | None, str, Any]]:
    """The events of a stream: id, name, data."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            # Of output, an offset and the history it is one of.
            number = int(fields["id"].partition("@")[0]) if "id" in fields else None
            yield number, fields["event"], json.loads(fields["data"])
        fields = {}


async def take(world: World, url: str, count: int, **headers: str) -> list[Any]:
    """The first events of a stream."""
    found = []
    async with asyncio.timeout(60), world.http.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for event in events(answer):
            found.append(event)
            if len(found) == count:
                break
    return found


class TestEvents:
    async def test_every_move_of_every_sandbox(self, any_world: World) -> None:
        one = await any_world.create()
        two = await any_world.create()
        await any_world.http.post(f"/v1/sandboxes/{one['id']}/pause")
        found = await take(any_world, "/v1/events?after=0", 6)
        told = [(e["sandbox"]["id"], e["sandbox"]["state"]) for _, _, e in found]
        assert told == [
            (one["id"], "creating"),
            (one["id"], "running"),
            (two["id"], "creating"),
            (two["id"], "running"),
            (one["id"], "running"),
            (one["id"], "paused"),
        ]
        assert {name for _, name, _ in found} == {"sandbox"}
        assert [number for number, _, _ in found] == [event["id"] for _, _, event in found]
        assert found[4][2]["sandbox"]["operation"] == "pausing"
        assert found[-1][2]["sandbox"] == await any_world.get(one["id"])

    async def test_live_ones_and_going_on_after_one(self, any_world: World) -> None:
        made = await any_world.create()
        url = f"/v1/sandboxes/{made['id']}/events"
        reading = asyncio.create_task(take(any_world, url, 2))
        # From now on: so nothing comes until something happens.
        await asyncio.wait({reading}, timeout=0.3)
        assert not reading.done()
        await any_world.http.post(f"/v1/sandboxes/{made['id']}/pause")
        pausing, paused = await reading
        again = await take(any_world, url, 1, **{"Last-Event-ID": str(pausing[0])})
        assert again == [paused]
        assert await take(any_world, f"{url}?after={pausing[0]}", 1) == [paused]

    async def test_another_sandbox_is_not_in_it(self, world: World) -> None:
        mine, other = await world.create(), await world.create()
        await world.http.delete(f"/v1/sandboxes/{other['id']}")
        await world.http.delete(f"/v1/sandboxes/{mine['id']}")
        found = await take(world, f"/v1/sandboxes/{mine['id']}/events?after=0", 4)
        assert {event["sandbox"]["id"] for _, _, event in found} == {mine["id"]}
        assert found[-1][2]["sandbox"]["state"] == "stopped"

    async def test_another_org_hears_nothing(self, world: World) -> None:
        await world.create()
        async with (
            await world.stranger() as other,
            other.stream("GET", "/v1/events?after=0") as answer,
        ):
            heard = asyncio.ensure_future(anext(events(answer)))
            await asyncio.wait({heard}, timeout=1)
            assert not heard.done()
            heard.cancel()

    async def test_bad_places(self, world: World) -> None:
        for query, headers in [("?after=-1", {}), ("?after=x", {}), ("", {"Last-Event-ID": "x"})]:
            answer = await world.http.get(f"/v1/events{query}", headers=headers)
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "invalid_request"

    async def test_silence_is_broken_by_pings(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sse, "PING_SECONDS", 0.05)
        async with asyncio.timeout(60), world.http.stream("GET", "/v1/events") as answer:
            pings = 0
            async for line in answer.aiter_lines():
                pings += line == ": ping"
                if pings == 3:
                    break

    async def test_it_ends_when_the_key_is_revoked(self, world: World) -> None:
        made = (await world.http.post("/v1/api-keys", json={"name": "temp"})).json()["data"]
        async with (
            client(world.url, made["key"]) as http,
            asyncio.timeout(60),
            http.stream("GET", "/v1/events") as answer,
        ):
            lines = answer.aiter_lines()
            await anext(lines)
            await world.http.delete(f"/v1/api-keys/{made['id']}")
            assert [line async for line in lines if line] == []
