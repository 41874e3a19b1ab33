"""Commands, files and looks inside a sandbox through the api."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator

import pytest_asyncio

from runtools.testing.api_world import World, holds


@pytest_asyncio.fixture
async def path(world: World) -> str:
    """The path of a running sandbox."""
    return f"/v1/sandboxes/{(await world.create(env={'WHO': 'world'}))['id']}"


class TestExec:
    async def test_a_shell_line(self, world: World, path: str) -> None:
        answer = await world.http.post(
            f"{path}/exec", json={"command": "echo hello $WHO; echo bad >&2; exit 3"}
        )
        assert answer.status_code == 200, answer.text
        result = answer.json()["data"]
        assert (result["stdout"], result["stderr"]) == ("hello world\n", "bad\n")
        assert (result["exitCode"], result["signal"]) == (3, None)

    async def test_arguments_pass_unchanged(self, world: World, path: str) -> None:
        words = ["printf", "%s|", "a b", "$WHO", "*", ""]
        answer = await world.http.post(f"{path}/exec", json={"command": words})
        assert answer.json()["data"]["stdout"] == "a b|$WHO|*||"

    async def test_a_process_id_is_not_run_twice(self, world: World, path: str) -> None:
        body = {"command": "echo x >> /proc/self/cwd/count", "processId": "p1"}
        first = await world.http.post(f"{path}/exec", json=body)
        again = await world.http.post(f"{path}/exec", json=body)
        assert first.json()["data"] == again.json()["data"]
        assert (await world.http.get(f"{path}/files?path=/workspace/count")).content == b"x\n"

    async def test_it_waits_for_one_still_creating(self, world: World) -> None:
        world.host.gate.clear()
        made = await world.create(waitForReady=False)
        running = asyncio.create_task(
            world.http.post(f"/v1/sandboxes/{made['id']}/exec", json={"command": "echo up"})
        )
        await holds(lambda: world.host.machines.get(made["id"]) is not None)
        assert not running.done()
        world.host.gate.set()
        assert (await running).json()["data"]["stdout"] == "up\n"

    async def test_it_wakes_a_paused_one(self, world: World, path: str) -> None:
        await world.http.post(f"{path}/pause")
        answer = await world.http.post(f"{path}/exec", json={"command": "true"})
        assert answer.status_code == 200
        await world.becomes(path.rsplit("/", 1)[1], state="running")

    async def test_looking_does_not_wake(self, world: World, path: str) -> None:
        await world.http.get(f"{path}/stats")
        await world.http.post(f"{path}/pause")
        for look in ("", "/stats", "/why", "/console", "/snapshots"):
            assert (await world.http.get(f"{path}{look}")).status_code == 200, look
        assert (await world.http.get(path)).json()["data"]["state"] == "paused"

    async def test_in_an_ended_one_it_says_why(self, world: World, path: str) -> None:
        await world.host.die(path.rsplit("/", 1)[1], "out of memory")
        await world.becomes(path.rsplit("/", 1)[1], state="stopped")
        answer = await world.http.post(f"{path}/exec", json={"command": "true"})
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "sandbox_stopped"
        assert "out of memory" in answer.json()["error"]["message"]

    async def test_the_console_is_a_list_of_lines(self, world: World, path: str) -> None:
        assert (await world.http.get(f"{path}/console?lines=1")).json()["data"] == ["ready"]


class TestFiles:
    async def test_written_read_and_read_in_part(self, world: World, path: str) -> None:
        put = await world.http.put(f"{path}/files?path=/workspace/d/a&mode=640", content=b"01234")
        assert put.status_code == 200, put.text
        assert put.json()["data"]["mode"] == 0o640
        await world.http.put(f"{path}/files?path=/workspace/d/a&append=true", content=b"56789")
        whole = await world.http.get(f"{path}/files?path=/workspace/d/a")
        assert whole.content == b"0123456789"
        assert whole.headers["content-type"] == "application/octet-stream"
        part = await world.http.get(f"{path}/files?path=/workspace/d/a&start=2&end=5")
        assert (part.content, part.headers["x-file-size"]) == (b"234", "10")
        assert part.headers["content-length"] == "3"

    async def test_empty_files(self, world: World, path: str) -> None:
        assert (await world.http.put(f"{path}/files?path=/e", content=b"")).status_code == 200
        read = await world.http.get(f"{path}/files?path=/e")
        assert (read.content, read.headers["content-length"]) == (b"", "0")

    async def test_folders(self, world: World, path: str) -> None:
        http = world.http
        await http.post(f"{path}/files/mkdir", json={"path": "/workspace/a/b"})
        await http.put(f"{path}/files?path=/workspace/a/b/c", content=b"x")
        copied = {"source": "/workspace/a", "target": "/workspace/z"}
        assert (await http.post(f"{path}/files/copy", json=copied)).status_code == 200
        moved = {"source": "/workspace/a/b/c", "target": "/workspace/c"}
        assert (await http.post(f"{path}/files/move", json=moved)).status_code == 200
        taken = await http.post(
            f"{path}/files/move", json={"source": "/workspace/c", "target": "/workspace/z/b/c"}
        )
        assert taken.json()["error"]["code"] == "file_exists"
        mode = await http.post(f"{path}/files/chmod", json={"path": "/workspace/c", "mode": 0o600})
        assert mode.json()["data"]["mode"] == 0o600
        wish = {"path": "/workspace/c", "old": "x", "new": "yy"}
        edited = await http.post(f"{path}/files/edit", json=wish)
        assert edited.json()["data"]["size"] == 2
        unfit = await http.post(f"{path}/files/edit", json=wish)
        error = unfit.json()["error"]
        assert (unfit.status_code, error["code"]) == (409, "edit_unfit")
        assert error["details"]["count"] == 0
        listed = (await http.get(f"{path}/files/list?path=/workspace&depth=9")).json()["data"]
        names = [entry["path"] for entry in listed["entries"]]
        assert names == [f"/workspace/{name}" for name in ("a", "a/b", "c", "z", "z/b", "z/b/c")]
        full = await http.delete(f"{path}/files?path=/workspace/z")
        assert full.json()["error"]["code"] == "file_is_directory"
        gone = await http.delete(f"{path}/files?path=/workspace/z&recursive=true")
        assert (gone.status_code, gone.json()["data"]) == (200, None)
        missing = await http.get(f"{path}/files/stat?path=/workspace/z")
        assert missing.json()["error"]["code"] == "file_missing"

    async def test_errors_come_before_any_byte(self, world: World, path: str) -> None:
        missing = await world.http.get(f"{path}/files?path=/nothing")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "file_missing"
        folder = await world.http.get(f"{path}/files?path=/workspace")
        assert folder.json()["error"]["code"] == "file_is_directory"
        archive = await world.http.get(f"{path}/files/archive?path=/nothing")
        assert archive.json()["error"]["code"] == "file_missing"

    async def test_a_folder_travels_as_tar(self, world: World, path: str) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("deep/file")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"hello"))
        url = f"{path}/files/archive?path=/workspace/in"
        put = await world.http.put(url, content=buffer.getvalue())
        assert put.status_code == 200, put.text
        back = await world.http.get(url)
        assert back.headers["content-type"] == "application/x-tar"
        with tarfile.open(fileobj=io.BytesIO(back.content)) as tar:
            member = tar.extractfile("in/deep/file")
            assert member is not None
            assert member.read() == b"hello"

    async def test_large_ones_pass_through_without_being_held(
        self, world: World, path: str
    ) -> None:
        chunk, count = os.urandom(1 << 20), 200

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield chunk

        before = _rss()
        put = await world.http.put(f"{path}/files?path=/big", content=chunks())
        assert put.json()["data"]["size"] == count << 20
        size = 0
        async with world.http.stream("GET", f"{path}/files?path=/big") as answer:
            async for part in answer.aiter_raw():
                size += len(part)
        assert size == count << 20
        assert _rss() - before < 100 << 20

    async def test_a_broken_upload_leaves_the_old_file(self, world: World, path: str) -> None:
        await world.http.put(f"{path}/files?path=/f", content=b"old")
        host, port = world.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"PUT {path}/files?path=/f HTTP/1.1\r\nHost: x\r\nX-API-Key: {world.key}\r\n"
        writer.write(f"{head}Content-Length: 1000\r\n\r\nnew".encode())
        await writer.drain()
        await holds(lambda: any(name.startswith("write") for name, _ in world.host.calls[-1:]))
        writer.close()
        folder = world.host.folder / path.rsplit("/", 1)[1]
        await holds(lambda: not list(folder.glob(".*.new")))
        assert (await world.http.get(f"{path}/files?path=/f")).content == b"old"

    async def test_a_reader_that_leaves_stops_the_reading(self, world: World, path: str) -> None:
        closed = asyncio.Event()

        async def endless(*_: object) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                closed.set()

        world.host.machines[path.rsplit("/", 1)[1]].inside.download = endless  # type: ignore[method-assign, assignment]
        async with world.http.stream("GET", f"{path}/files/archive?path=/workspace") as answer:
            await anext(answer.aiter_raw())
        await asyncio.wait_for(closed.wait(), 60)


def _rss() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * 4096
