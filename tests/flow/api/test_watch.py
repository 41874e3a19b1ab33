"""Changes of files as a stream of the api."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.flow.api.test_events import events

from runtools.sdk.shapes import FileChange
from runtools.testing.api_world import World, client

Change = tuple[int, str, str]


@pytest_asyncio.fixture
async def path(world: World) -> str:
    """The path of a running sandbox."""
    return f"/v1/sandboxes/{(await world.create())['id']}"


@asynccontextmanager
async def watching(http: httpx.AsyncClient, url: str, **headers: str) -> AsyncIterator[Any]:
    """The changes that a stream tells: id, kind, path."""
    async with asyncio.timeout(60), http.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _changes(answer)


async def _changes(answer: httpx.Response) -> AsyncIterator[Change]:
    async for number, name, data in events(answer):
        assert (name, number) == ("change", data["id"])
        yield number, data["kind"], data["path"]


async def until(changes: AsyncIterator[Change], kind: str, path: str) -> list[Change]:
    """All of them up to this one."""
    seen = [await anext(changes)]
    while seen[-1][1:] != (kind, path):
        seen.append(await anext(changes))
    return seen


async def mkdir(world: World, path: str, *names: str) -> None:
    for name in names:
        made = await world.http.post(f"{path}/files/mkdir", json={"path": name})
        assert made.status_code == 200, made.text


class TestWatch:
    async def test_armed_then_what_changes(self, world: World, path: str) -> None:
        async with watching(world.http, f"{path}/files/watch?path=/workspace") as changes:
            assert (await anext(changes))[1:] == ("armed", "/workspace")
            await mkdir(world, path, "/workspace/a/b")
            await world.http.delete(f"{path}/files?path=/workspace/a/b")
            seen = await until(changes, "delete", "/workspace/a/b")
        told = [change[1:] for change in seen if change[1] != "change"]
        assert told == [
            ("create", "/workspace/a"),
            ("create", "/workspace/a/b"),
            ("delete", "/workspace/a/b"),
        ]

    async def test_only_the_folder_itself(self, world: World, path: str) -> None:
        await mkdir(world, path, "/workspace/deep")
        url = f"{path}/files/watch?path=/workspace&recursive=false"
        async with watching(world.http, url) as changes:
            await anext(changes)
            await mkdir(world, path, "/workspace/deep/unheard", "/workspace/heard")
            seen = await until(changes, "create", "/workspace/heard")
        assert "/workspace/deep/unheard" not in {place for _, _, place in seen}

    async def test_it_goes_on_after_a_change(self, world: World, path: str) -> None:
        url = f"{path}/files/watch?path=/workspace"
        async with watching(world.http, url) as changes:
            begun, _, _ = await anext(changes)
        await mkdir(world, path, "/workspace/a", "/workspace/b")
        async with watching(world.http, url, **{"Last-Event-ID": str(begun)}) as changes:
            assert (await anext(changes))[1] == "armed"
            first = await anext(changes)
            assert first[1:] == ("create", "/workspace/a")
        async with watching(world.http, f"{url}&after={first[0]}") as changes:
            assert (await anext(changes))[1] == "armed"
            seen = await until(changes, "create", "/workspace/b")
        assert "/workspace/a" not in {place for _, _, place in seen}

    async def test_what_is_lost_is_said(self, world: World, path: str) -> None:
        url = f"{path}/files/watch?path=/workspace&after=7"
        async with watching(world.http, url) as changes:
            assert (await anext(changes))[1] == "overflow"

    async def test_it_lives_through_a_pause(self, world: World, path: str) -> None:
        async with watching(world.http, f"{path}/files/watch?path=/workspace") as changes:
            begun, _, _ = await anext(changes)
            await world.http.post(f"{path}/pause")
            again = f"{path}/files/watch?path=/workspace&after={begun}"
            async with watching(world.http, again) as others:
                assert (await anext(others))[1] == "armed"
            assert (await world.http.get(path)).json()["data"]["state"] == "paused"
            await mkdir(world, path, "/workspace/a")
            assert (await anext(changes))[1:] == ("create", "/workspace/a")

    async def test_it_ends_when_the_key_is_revoked(self, world: World, path: str) -> None:
        made = (await world.http.post("/v1/api-keys", json={"name": "brief"})).json()["data"]
        url = f"{path}/files/watch?path=/workspace"
        async with client(world.url, made["key"]) as http, watching(http, url) as changes:
            assert (await anext(changes))[1] == "armed"
            await world.http.delete(f"/v1/api-keys/{made['id']}")
            assert [change async for change in changes] == []

    async def test_a_key_for_files_is_enough_and_needed(self, world: World, path: str) -> None:
        for scope, status in (("files:read", 200), ("sandbox:read", 403)):
            body = {"name": scope, "scopes": [scope]}
            made = (await world.http.post("/v1/api-keys", json=body)).json()["data"]
            url = f"{path}/files/watch?path=/workspace"
            async with (
                client(world.url, made["key"]) as http,
                asyncio.timeout(60),
                http.stream("GET", url) as answer,
            ):
                assert answer.status_code == status

    async def test_when_the_folder_goes_asking_again_says_so(self, world: World, path: str) -> None:
        await mkdir(world, path, "/workspace/a")
        url = f"{path}/files/watch?path=/workspace/a"
        async with watching(world.http, url) as changes:
            begun, _, _ = await anext(changes)
            await world.http.delete(f"{path}/files?path=/workspace/a")
            told = await until(changes, "delete", "/workspace/a")
            assert [change async for change in changes] == []
        again = await world.http.get(url, headers={"Last-Event-ID": str(told[-1][0])})
        assert (again.status_code, again.json()["error"]["code"]) == (404, "file_missing")
        assert begun < told[-1][0]

    async def test_a_reader_that_leaves_gives_his_place_back(
        self, world: World, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed = asyncio.Event()

        async def silent(*_: object) -> AsyncIterator[FileChange]:
            try:
                yield FileChange(id=1, kind="armed", path="/workspace", is_directory=True)
                await asyncio.Event().wait()
            finally:
                closed.set()

        monkeypatch.setattr(world.host, "watch", silent)
        async with watching(world.http, f"{path}/files/watch?path=/workspace") as changes:
            await anext(changes)
            assert not closed.is_set()
        await asyncio.wait_for(closed.wait(), 60)


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "status", "code"),
        [
            ("path=/nothing", 404, "file_missing"),
            ("path=/workspace/file", 409, "file_not_directory"),
            ("path=relative", 400, "invalid_path"),
            ("path=/a/../b", 400, "invalid_path"),
            ("", 400, "invalid_request"),
            ("path=/workspace&after=-1", 400, "invalid_request"),
            ("path=/workspace&recursive=maybe", 400, "invalid_request"),
        ],
    )
    async def test_before_the_stream_begins(
        self, world: World, path: str, query: str, status: int, code: str
    ) -> None:
        await world.http.put(f"{path}/files?path=/workspace/file", content=b"x")
        answer = await world.http.get(f"{path}/files/watch?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)

    async def test_a_bad_place_to_go_on(self, world: World, path: str) -> None:
        url = f"{path}/files/watch?path=/workspace"
        answer = await world.http.get(url, headers={"Last-Event-ID": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")

    async def test_another_org_sees_nothing(self, world: World, path: str) -> None:
        async with await world.stranger() as other:
            answer = await other.get(f"{path}/files/watch?path=/workspace")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
