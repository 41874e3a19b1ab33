"""The host port's way over HTTP: what is asked arrives, what is answered returns, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import stat
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from runtools.errors import DiskFull, FileMissing, HostUnavailable, RunToolsError, SandboxStopped
from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.core.ports.host import FileBody, Host, Observed
from runtools.platform.core.ports.host_wire import CALLS
from runtools.platform.host.server import serving
from runtools.sdk.shapes.inside import ExecRequest, ExecResult, FileEntry, Listing
from runtools.sdk.shapes.templates import BuildLine

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ENTRY = FileEntry(
    path="/workspace/ä b",
    kind="file",
    size=3,
    mode=0o644,
    owner="root",
    group="root",
    modified_at=NOW,
)
MB = 2**20


class Scripted:
    """Answers what a test tells it to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self.done = asyncio.Event()
        self.pieces = 0

    async def pause(self, sandbox_id: str, op: str, actor: str) -> Observed:
        self.asked.append((sandbox_id, op, actor))
        self.began.set()
        await self.go.wait()
        self.done.set()
        return observed(sandbox_id, 1)

    async def resume(
        self, sandbox_id: str, op: str, actor: str, room_seconds: float | None = None
    ) -> Observed:
        raise SandboxStopped("it ended", hint="see why", details={"n": 1})

    async def destroy(self, sandbox_id: str, op: str, actor: str) -> Observed:
        raise ZeroDivisionError("a bug")

    async def exec(self, sandbox_id: str, request: ExecRequest) -> ExecResult:
        self.asked.append((sandbox_id, request))
        return ExecResult(
            process_id="p",
            stdout="x" * (8 * MB),
            stderr="",
            encoding="utf-8",
            exit_code=0,
            signal=None,
            duration_ms=1.5,
            timed_out=False,
            truncated=False,
        )

    async def reports(self, epoch: int, seq: int) -> AsyncIterator[Observed]:
        try:
            yield observed("sandbox-a", seq + 1)
            self.began.set()
            await self.go.wait()
            yield observed("sandbox-a", seq + 2)
        finally:
            self.ended.set()

    async def build_log(self, version_id: str, after: int) -> AsyncIterator[BuildLine]:
        yield BuildLine(n=after + 1, at=NOW, progress=0.5, step="base", text='{"error": "no"}\n')
        raise FileMissing("the log is gone")

    async def read(
        self, sandbox_id: str, path: str, start: int, end: int | None
    ) -> tuple[FileBody, AsyncIterator[bytes]]:
        return FileBody(entry=ENTRY, start=start, end=9), self._blocks(path)

    async def download(self, sandbox_id: str, path: str) -> AsyncIterator[bytes]:
        return self._blocks(path)

    async def _blocks(self, path: str) -> AsyncIterator[bytes]:
        try:
            if path == "/empty":
                return
            for n in range(2048 if path == "/big" else 3):
                self.pieces += 1
                yield bytes([n % 256]) * (MB if path == "/big" else 2)
            if path == "/broken":
                raise DiskFull("in the middle")
        finally:
            self.ended.set()

    async def write(
        self, sandbox_id: str, op: str, path: str, chunks: AsyncIterator[bytes], mode: Any, how: Any
    ) -> FileEntry:
        size = 0
        try:
            async for chunk in chunks:
                self.pieces += 1
                size += len(chunk)
                if path == "/full":
                    raise DiskFull("no room")
                if path == "/slow":
                    self.began.set()
                    await self.go.wait()
        except RunToolsError:
            self.ended.set()
            raise
        return ENTRY.model_copy(update={"size": size, "mode": mode or 0, "path": how})

    async def list(self, sandbox_id: str, path: str, depth: int) -> Listing:
        return Listing(entries=[ENTRY] * 3, truncated=True)

    async def drop_snapshot(self, snapshot_id: str) -> None:
        self.asked.append((snapshot_id,))


def observed(sandbox_id: str, seq: int) -> Observed:
    return Observed(
        sandbox_id=sandbox_id,
        epoch=1,
        seq=seq,
        at=NOW,
        state="running",
        operation=None,
        cause="request",
        actor="me",
        detail={"x": [1, None]},
    )


async def blocks(count: int, size: int = MB) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"z" * size


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "host.sock"


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
async def host(scripted: Scripted, socket_path: Path) -> AsyncIterator[RemoteHost]:
    async with serving(cast(Host, scripted), socket_path), RemoteHost(socket_path) as remote:
        yield remote


async def still(count: Callable[[], int]) -> int:
    """What a counter has come to once it does not move any more."""
    before = -1
    while before != count():
        before = count()
        await asyncio.sleep(0.1)
    return before


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(60):
        await event.wait()


class TestTable:
    def test_it_holds_every_method_of_the_port(self) -> None:
        methods = {n for n, _ in inspect.getmembers(Host, inspect.isfunction) if n[0] != "_"}
        assert set(CALLS) == methods

    def test_the_client_takes_what_the_port_takes(self) -> None:
        for name in CALLS:
            mine = inspect.signature(getattr(RemoteHost, name)).parameters
            assert list(mine) == list(inspect.signature(getattr(Host, name)).parameters), name


class TestValues:
    async def test_arguments_and_answer_arrive_as_they_were(
        self, host: RemoteHost, scripted: Scripted
    ) -> None:
        scripted.go.set()
        assert await host.pause("sandbox-a", "op\n1", "ä") == observed("sandbox-a", 1)
        assert scripted.asked == [("sandbox-a", "op\n1", "ä")]

    async def test_a_large_answer_is_whole(self, host: RemoteHost, scripted: Scripted) -> None:
        request = ExecRequest(command=["a", "b c"], process_id="p", env={"A": "é"})
        result = await host.exec("sandbox-a", request)
        assert len(result.stdout) == 8 * MB
        assert scripted.asked == [("sandbox-a", request)]

    async def test_nothing_is_a_value(self, host: RemoteHost, scripted: Scripted) -> None:
        await host.drop_snapshot("snp_1")
        assert scripted.asked == [("snp_1",)]

    async def test_an_error_comes_back_as_itself(self, host: RemoteHost) -> None:
        with pytest.raises(SandboxStopped) as caught:
            await host.resume("sandbox-a", "op", "me")
        assert (caught.value.hint, caught.value.details) == ("see why", {"n": 1})

    async def test_a_bug_over_there_is_an_error_here(self, host: RemoteHost) -> None:
        with pytest.raises(RunToolsError, match="a bug"):
            await host.destroy("sandbox-a", "op", "me")

    async def test_many_at_once(self, host: RemoteHost) -> None:
        answers = await asyncio.gather(*(host.list("sandbox-a", "/", 1) for _ in range(100)))
        assert all(len(answer.entries) == 3 for answer in answers)

    async def test_a_caller_that_goes_away_does_not_end_an_act(
        self, host: RemoteHost, scripted: Scripted
    ) -> None:
        task = asyncio.create_task(host.pause("sandbox-a", "op", "me"))
        await soon(scripted.began)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        scripted.go.set()
        await soon(scripted.done)


class TestItems:
    async def test_each_arrives_at_once(self, host: RemoteHost, scripted: Scripted) -> None:
        stream = host.reports(3, 7)
        assert await anext(stream) == observed("sandbox-a", 8)
        await soon(scripted.began)
        scripted.go.set()
        assert [item.seq async for item in stream] == [9]

    async def test_an_error_ends_them(self, host: RemoteHost) -> None:
        stream = host.build_log("tpl", 4)
        assert (await anext(stream)).text == '{"error": "no"}\n'
        with pytest.raises(FileMissing):
            await anext(stream)

    async def test_a_caller_that_goes_away_ends_them(
        self, host: RemoteHost, scripted: Scripted
    ) -> None:
        stream = host.reports(1, 0)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await soon(scripted.ended)

    async def test_a_stop_ends_them(
        self, scripted: Scripted, socket_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with RemoteHost(socket_path) as remote:
            async with serving(cast(Host, scripted), socket_path):
                stream = remote.reports(1, 0)
                await anext(stream)
            with pytest.raises(HostUnavailable, match="being stopped"):
                await anext(stream)
        assert caplog.records == []


class TestBytes:
    async def test_a_file_and_what_is_known_of_it(self, host: RemoteHost) -> None:
        body, chunks = await host.read("sandbox-a", "/small", 3, None)
        assert (body.entry, body.start) == (ENTRY, 3)
        assert b"".join([chunk async for chunk in chunks]) == b"\0\0\1\1\2\2"

    async def test_an_empty_file(self, host: RemoteHost) -> None:
        _, chunks = await host.read("sandbox-a", "/empty", 0, None)
        assert [chunk async for chunk in chunks] == []

    async def test_one_that_breaks_in_the_middle_is_not_reported_whole(
        self, host: RemoteHost
    ) -> None:
        _, chunks = await host.read("sandbox-a", "/broken", 0, None)
        with pytest.raises(HostUnavailable):
            [chunk async for chunk in chunks]

    async def test_a_slow_reader_holds_the_sender_back(
        self, host: RemoteHost, scripted: Scripted
    ) -> None:
        chunks = await host.download("sandbox-a", "/big")
        await anext(chunks)
        assert await still(lambda: scripted.pieces) < 16
        await chunks.aclose()  # type: ignore[attr-defined]
        await soon(scripted.ended)

    async def test_gigabytes_pass(self, host: RemoteHost) -> None:
        chunks = await host.download("sandbox-a", "/big")
        assert sum([len(chunk) async for chunk in chunks]) == 2048 * MB

    async def test_gigabytes_are_taken_whole(self, host: RemoteHost, scripted: Scripted) -> None:
        entry = await host.write("sandbox-a", "op", "/x", blocks(2048), 0o600, "append")
        assert (entry.size, entry.mode, entry.path) == (2048 * MB, 0o600, "append")

    async def test_an_empty_body(self, host: RemoteHost) -> None:
        entry = await host.write("sandbox-a", "op", "/x", blocks(0), None, "replace")
        assert entry.size == 0

    async def test_a_refusal_in_the_middle_of_a_body(
        self, host: RemoteHost, scripted: Scripted
    ) -> None:
        with pytest.raises(DiskFull):
            await host.write("sandbox-a", "op", "/full", blocks(100_000), None, "replace")
        assert (await host.list("sandbox-a", "/", 1)).truncated

    async def test_a_slow_taker_holds_the_sender_back(
        self, host: RemoteHost, scripted: Scripted
    ) -> None:
        sent = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal sent
            async for block in blocks(1000):
                sent += 1
                yield block

        task = asyncio.create_task(
            host.write("sandbox-a", "op", "/slow", counted(), None, "replace")
        )
        await soon(scripted.began)
        assert await still(lambda: sent) < 16
        scripted.go.set()
        assert (await task).size == 1000 * MB

    async def test_a_sender_that_breaks_off_breaks_the_write(
        self, host: RemoteHost, scripted: Scripted
    ) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * MB
            raise OSError("its disk died")

        with pytest.raises(OSError, match="its disk died"):
            await host.write("sandbox-a", "op", "/x", broken(), None, "replace")
        await soon(scripted.ended)


class TestConnection:
    async def test_nobody_is_there(self, socket_path: Path) -> None:
        async with RemoteHost(socket_path) as remote:
            with pytest.raises(HostUnavailable):
                await remote.view()

    async def test_it_comes_back(self, scripted: Scripted, socket_path: Path) -> None:
        async with RemoteHost(socket_path) as remote:
            for _ in range(2):
                async with serving(cast(Host, scripted), socket_path):
                    await remote.drop_snapshot("snp_1")

    async def test_it_goes_away_before_it_answers(self, socket_path: Path) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.close()

        server = await asyncio.start_unix_server(hang_up, socket_path)
        async with server, RemoteHost(socket_path) as remote:
            with pytest.raises(HostUnavailable, match="before it answered"):
                await remote.view()

    async def test_it_speaks_something_else(self, socket_path: Path) -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(babble, socket_path)
        async with server, RemoteHost(socket_path) as remote:
            with pytest.raises(HostUnavailable):
                await remote.view()

    @pytest.mark.usefixtures("host")
    def test_only_its_owner_may_connect(self, socket_path: Path) -> None:
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
