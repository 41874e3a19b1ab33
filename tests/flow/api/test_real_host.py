"""The api over the real host service and its socket; only the machines are local processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.flow.api.test_events import events
from websockets.asyncio.client import connect

from runtools import AsyncRunTools
from runtools.errors import Conflict, SandboxStopped, WaitsForRoom
from runtools.sdk.sandbox import AsyncSandbox
from runtools.testing.api_world import client, holds
from runtools.testing.crash.look import machines
from runtools.testing.local_platform import local_platform


@pytest_asyncio.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a whole platform with a template that is ready."""
    async with local_platform(tmp_path) as (url, key), client(url, key) as made:
        yield made


async def act(http: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """What an act answers."""
    answer = await http.request(method, f"/v1{path}", json=body)
    assert answer.status_code < 300, answer.text
    return answer.json()["data"]


async def test_a_whole_life(http: httpx.AsyncClient) -> None:
    made = await act(http, "POST", "/sandboxes", {"name": "one", "env": {"WHO": "me"}})
    assert (made["state"], made["operation"]) == ("running", None)
    assert made["timings"]["totalMs"] > 0
    path = "/sandboxes/one"
    result = await act(http, "POST", f"{path}/exec", {"command": "echo $WHO; exit 4"})
    assert (result["stdout"], result["exitCode"]) == ("me\n", 4)
    put = await http.put(f"/v1{path}/files?path=/workspace/a", content=b"x" * 300_000)
    assert put.json()["data"]["size"] == 300_000
    kept = await act(http, "POST", f"{path}/snapshots", {"name": "good"})
    await act(http, "DELETE", f"{path}/files?path=/workspace/a")
    assert (await act(http, "POST", f"{path}/rollback", {"to": "good"}))["state"] == "running"
    assert len((await http.get(f"/v1{path}/files?path=/workspace/a")).content) == 300_000
    assert (await act(http, "POST", f"{path}/pause"))["state"] == "paused"
    fork = await act(http, "POST", f"{path}/fork", {"count": 2, "name": "kid"})
    assert [child["state"] for child in fork["children"]] == ["running", "running"]
    assert (await act(http, "POST", f"{path}/resume"))["state"] == "running"
    result = await act(http, "POST", "/sandboxes/kid-2/exec", {"command": "echo $WHO"})
    assert result["stdout"] == "me\n"
    assert (await act(http, "DELETE", f"{path}/snapshots/{kept['id']}"))["name"] == "good"
    gone = await act(http, "DELETE", path)
    assert (gone["state"], gone["ending"]["cause"]) == ("stopped", "request")
    moves = [(line["state"], line["operation"]) for line in await act(http, "GET", f"{path}/why")]
    assert moves[0] == ("creating", "starting")
    assert ("running", "pausing") in moves
    assert moves[-1] == ("stopped", None)


async def test_errors_come_through(http: httpx.AsyncClient) -> None:
    made = await act(http, "POST", "/sandboxes", {})
    missing = await http.get(f"/v1/sandboxes/{made['id']}/files?path=/nothing")
    assert missing.json()["error"]["code"] == "file_missing"
    huge = await http.post("/v1/sandboxes", json={"memoryMb": 500_000, "queue": False})
    assert huge.json()["error"]["code"] == "capacity_exhausted", huge.text
    bad = await http.post("/v1/templates/base-debian/builds", json={"apt": ["no-such-thing"]})
    assert bad.status_code == 201
    lines = (await http.get("/v1/templates/base-debian/logs?version=2")).text
    assert '"state":"failed"' in lines.rsplit("event: end", 1)[1]


async def test_a_destroy_of_an_ended_one_removes_its_kept_disk(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    path = f"/sandboxes/{(await act(http, 'POST', '/sandboxes', {}))['id']}"
    await act(http, "POST", f"{path}/snapshots", {"name": "good"})
    for pid, _ in machines(tmp_path, "local"):
        os.kill(pid, signal.SIGKILL)

    async def ended() -> bool:
        return bool((await act(http, "GET", path))["state"] == "stopped")

    await holds(ended, 60)
    assert (await act(http, "GET", "/disk"))["endedBytes"] > 0
    gone = await act(http, "DELETE", path)
    assert (gone["ending"]["cause"], gone["ending"]["recoverableUntil"]) == ("vmm_exit", None)
    used = await act(http, "GET", "/disk")
    assert (used["endedBytes"], used["snapshotsBytes"]) == (0, 0)
    assert await act(http, "GET", f"{path}/snapshots") == []


async def test_a_resume_waits_for_room_and_says_so(tmp_path: Path) -> None:
    async with (
        local_platform(tmp_path, max_sandboxes=1) as (url, key),
        AsyncRunTools(key, url) as rt,
    ):
        slept = await (await rt.sandboxes.create(name="slept")).pause()
        ran = await rt.sandboxes.create()
        with pytest.raises(WaitsForRoom, match="asked for 1 sandboxes, 0 free") as told:
            await slept.resume(timeout_seconds=0)
        assert told.value.details["position"] == 1
        assert (slept.state, slept.operation) == ("paused", "queued")
        acts: list[asyncio.Future[object]] = []

        def make_room(waiting: AsyncSandbox) -> None:
            assert waiting.queue is not None
            assert waiting.queue.position == 1
            acts.append(asyncio.ensure_future(ran.destroy()))

        async with asyncio.timeout(60):
            assert (await slept.resume(on_wait=make_room)).state == "running"
        await slept.pause()
        ran = await rt.sandboxes.create()
        other = await rt.sandboxes.get("slept")

        def pause(_: AsyncSandbox) -> None:
            acts.append(asyncio.ensure_future(other.pause()))

        async with asyncio.timeout(60):
            with pytest.raises(Conflict, match="was paused again"):
                await slept.resume(on_wait=pause)
        await asyncio.gather(*acts)


async def test_a_download_from_one_that_is_destroyed_meanwhile_says_so(tmp_path: Path) -> None:
    async with local_platform(tmp_path / "home") as (url, key), AsyncRunTools(key, url) as rt:
        box = await rt.sandboxes.create()
        await box.exec("mkdir x; head -c 60M /dev/zero > x/a")
        loop, ended = asyncio.get_running_loop(), False

        def end(_: int) -> None:
            nonlocal ended
            if not ended:
                ended = True
                asyncio.run_coroutine_threadsafe(box.destroy(), loop).result(60)

        async with asyncio.timeout(60):
            with pytest.raises(SandboxStopped, match="in the middle of this: destroyed"):
                await box.files.download("/workspace/x", tmp_path / "x", on_progress=end)


async def test_files_are_watched_to_the_end_of_a_sandbox(http: httpx.AsyncClient) -> None:
    await act(http, "POST", "/sandboxes", {"name": "one"})
    url = "/v1/sandboxes/one/files/watch?path=/workspace"
    missing = await http.get(f"{url}/none")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "file_missing")
    async with asyncio.timeout(60), http.stream("GET", url) as answer:
        changes = events(answer)
        assert (await anext(changes))[2]["kind"] == "armed"
        await act(http, "POST", "/sandboxes/one/pause")
        await act(http, "POST", "/sandboxes/one/files/mkdir", {"path": "/workspace/a"})
        number, _, told = await anext(changes)
        assert (told["kind"], told["path"]) == ("create", "/workspace/a")
        await act(http, "DELETE", "/sandboxes/one")
        assert {told["kind"] async for _, _, told in changes} <= {"change", "delete"}
    again = await http.get(url, headers={"Last-Event-ID": str(number)})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "sandbox_stopped")


async def test_a_viewer_that_drops_on_full_input_has_sent_it_once(http: httpx.AsyncClient) -> None:
    await act(http, "POST", "/sandboxes", {"name": "one"})
    path = "/sandboxes/one/processes"
    body = {"command": "until [ -e go ]; do sleep 0.05; done; wc -c", "processId": "p"}
    await act(http, "POST", path, body)
    url = f"{str(http.base_url).replace('http', 'ws').rstrip('/')}/v1{path}/p/terminal"
    named = {"Authorization": http.headers["Authorization"]}
    async with connect(url, proxy=None, compression=None, additional_headers=named) as viewer:
        for _ in range(5):  # as much as the pipe and the holder keep for one that does not read
            await viewer.send(bytes(65_536))
            while json.loads(await viewer.recv())["type"] != "taken":
                pass
        await viewer.send(bytes(60_000))
        for _ in range(3):  # by now it waits for room inside
            await act(http, "GET", f"{path}/p")
        viewer.transport.abort()
    for _ in range(3):
        await act(http, "GET", f"{path}/p")
    await http.put("/v1/sandboxes/one/files?path=/workspace/go", content=b"")
    sent = 5 * 65_536 + 60_000

    async def taken() -> bool:
        answer = await http.post(f"/v1{path}/p/input", content=b"")
        return bool(answer.json()["data"]["taken"] >= sent)

    await holds(taken, 60)
    await act(http, "POST", f"{path}/p/input/close")
    assert (await act(http, "GET", f"{path}/p?waitMs=60000"))["exitCode"] == 0
    assert int((await http.get(f"/v1{path}/p/output")).content) == sent
