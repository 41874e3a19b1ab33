"""A guest whose agent is a liar: every call ends in time by a typed error, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from runtools.errors import GuestUnreachable
from runtools.guest import protocol
from runtools.guest.protocol import BYTES, HEADER, JSON
from runtools.platform.core.ports.host import Host
from runtools.platform.host import processes
from runtools.platform.host.engine.acts import resume
from runtools.platform.host.guest import client
from runtools.platform.host.guest.patience import Patience
from runtools.sdk.shapes.inside import ExecRequest
from runtools.sdk.shapes.processes import ProcessRequest, TerminalSize

from .conftest import fresh, until

HURRIED = Patience(hello=0.5, op=1.0, long=1.0, grace=0.7, stall=0.5, quiet=0.5, away=0.7, held=0.5)
IN_TIME = 20.0
ENOUGH = 2.0
HELLO = protocol.frame(
    JSON, b'{"ok":{"version":%d,"boot":"b","features":{"kill":"session"}}}' % protocol.VERSION
)
GO = protocol.frame(JSON, b'{"go":true}')


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(host: Host, box: str) -> None:
    _, body = await host.read(box, "/f", 0, None)
    async for _ in body:
        pass


async def every(items: AsyncIterator[object]) -> None:
    async for _ in items:
        pass


async def download(host: Host, box: str) -> None:
    await every(await host.download(box, "/f"))


def request(**fields: object) -> ProcessRequest:
    return ProcessRequest(command="true", process_id=fresh("prc"), **fields)


# Every way into a guest; one that is added to the port must be added here.
CALLS = {
    "exec": lambda h, b: h.exec(
        b, ExecRequest(command="true", process_id=fresh("prc"), timeout_ms=100)
    ),
    "signal_exec": lambda h, b: h.signal_exec(b, "prc_1", fresh("op"), 9),
    "start_process": lambda h, b: h.start_process(b, request()),
    "list_processes": lambda h, b: h.list_processes(b),
    "get_process": lambda h, b: h.get_process(b, "prc_1"),
    "wait_process": lambda h, b: h.wait_process(b, "prc_1", 100),
    "read_output": lambda h, b: h.read_output(b, "prc_1", "output", 0, 100),
    "follow_output": lambda h, b: every(h.follow_output(b, "prc_1", "output", 0)),
    "send_input": lambda h, b: h.send_input(b, "prc_1", fresh("op"), b"x"),
    "close_input": lambda h, b: h.close_input(b, "prc_1", fresh("op")),
    "signal_process": lambda h, b: h.signal_process(b, "prc_1", fresh("op"), 9),
    "end_process": lambda h, b: h.end_process(b, "prc_1"),
    "resize_terminal": lambda h, b: h.resize_terminal(
        b, "prc_1", fresh("op"), TerminalSize(rows=1, columns=1)
    ),
    "stats": lambda h, b: h.stats(b),
    "stat": lambda h, b: h.stat(b, "/f"),
    "list": lambda h, b: h.list(b, "/", 1),
    "mkdir": lambda h, b: h.mkdir(b, fresh("op"), "/d", 0o755),
    "move": lambda h, b: h.move(b, fresh("op"), "/a", "/b", False),
    "copy": lambda h, b: h.copy(b, fresh("op"), "/a", "/b", False),
    "chmod": lambda h, b: h.chmod(b, fresh("op"), "/f", 0o600),
    "edit": lambda h, b: h.edit(b, fresh("op"), "/f", "a", "b", 1),
    "remove": lambda h, b: h.remove(b, fresh("op"), "/f", False),
    "read": read,
    "write": lambda h, b: h.write(b, fresh("op"), "/f", chunks(b"x" * 99), None, "replace"),
    "download": download,
    "upload": lambda h, b: h.upload(b, fresh("op"), "/d", chunks(b"x" * 99)),
    "watch": lambda h, b: every(h.watch(b, "/d", True, None)),
}
# What asks no guest.
OUTSIDE = {
    *("order", "settled", "pause", "resume", "destroy", "snapshot", "rollback", "fork"),
    *("set_egress", "set_limits", "hand_over", "egress_log", "stats_history", "console"),
}


# They have no answer but that it was done.
TAKEN_AT_ITS_WORD = {"signal_exec", "remove"}


class Liar:
    """Listens in the agent's place. ``lie`` is what it does once it was greeted."""

    def __init__(self, lie: object) -> None:
        self.lie = lie
        self.writers: list[asyncio.StreamWriter] = []

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._frame(reader)
            await self.lie(self, reader, writer)
        writer.transport.abort()

    async def next(self, reader: asyncio.StreamReader) -> None:
        """The next request."""
        while (await self._frame(reader)) != JSON:
            pass

    async def _frame(self, reader: asyncio.StreamReader) -> int:
        length, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
        await reader.readexactly(length)
        return int(kind)


async def in_time(call: Awaitable[object], seconds: float = IN_TIME) -> object:
    """It ends by itself."""
    async with asyncio.timeout(seconds):
        return await call


def says(data: bytes) -> object:
    """The same to every request."""

    async def lie(liar: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        while True:
            await liar.next(reader)
            writer.write(data)
            await writer.drain()

    return lie


async def floods(_: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Without end, an answer of whatever size first."""
    writer.write(HELLO + HEADER.pack(protocol.MAX_JSON, JSON))
    while not writer.is_closing():
        writer.write(b" " * (1 << 20))
        await writer.drain()


async def pours(liar: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body without end where one may come."""
    writer.write(HELLO)
    await liar.next(reader)
    entry = {"path": "/f", "kind": "file", "size": 9, "mode": 420, "owner": "r", "group": "r"}
    head = {"entry": {**entry, "modified": 1.0, "target": None}, "start": 0, "end": 9}
    ran = {"exit_code": 0, "signal": None, "duration_ms": 1.0, "timed_out": False}
    ran |= {"truncated": False, "stdout": 9, "stderr": 0}
    writer.write(protocol.frame(JSON, json.dumps({"ok": {**head, **ran}}).encode()))
    while not writer.is_closing():
        writer.write(protocol.frame(BYTES, bytes(1 << 20)))
        await writer.drain()


async def is_silent(_: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes everything, says nothing."""
    writer.write(HELLO)
    while await reader.read(1 << 16):
        pass


async def hangs_up(liar: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """At every request."""
    writer.write(HELLO)
    await liar.next(reader)


async def drips(liar: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then."""
    writer.write(HELLO)
    await liar.next(reader)
    for byte in protocol.frame(JSON, b"{" + b" " * 100_000):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


LIES = {
    "garbage": says(b"\xff" * 99),
    "no-json": says(protocol.frame(JSON, b"[" * 100_000)),
    "another-shape": says(protocol.frame(JSON, b'{"ok":{"exit_code":"no"}}')),
    "an-unknown-error": says(protocol.frame(JSON, b'{"error":{"code":"x","message":"y"}}')),
    "go-on-for-ever": says(GO),
    "too-much": floods,
    "a-body-without-end": pours,
    "never": is_silent,
    "hangs-up": hangs_up,
    "drips": drips,
}


# A folder may be of any size: who reads goes away when he has enough.
ENDLESS = {("download", "a-body-without-end")}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's patience with guests, in tenths of seconds."""
    monkeypatch.setattr(client, "Patience", lambda: HURRIED)
    monkeypatch.setattr(processes, "_AWAY_SECONDS", 0.5)
    monkeypatch.setattr(resume, "RESTORED_SECONDS", 2.0)


@contextlib.asynccontextmanager
async def lied_to(world, box: str, tmp_path: Path, lie: object):
    """All connections to the guest of this sandbox lead to a liar."""
    liar = Liar(lie)
    server = await asyncio.start_unix_server(liar.meet, str(tmp_path / "liar.sock"))
    true_connect = world.driver.connect
    folder = world.box(box).machine().folder

    async def connect(machine):
        if machine.folder != folder:
            return await true_connect(machine)
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.connect(str(tmp_path / "liar.sock"))
        return sock

    world.driver.connect = connect
    await world.box(box).guest.quiesce()  # so that no old connection is used any more
    try:
        yield liar
    finally:
        server.close()
        for writer in liar.writers:
            writer.transport.abort()


def test_every_way_into_a_guest_is_tried() -> None:
    inside = {
        name
        for name, method in inspect.getmembers(Host, inspect.isfunction)
        if "sandbox_id" in inspect.signature(method).parameters
    }
    assert inside - OUTSIDE == set(CALLS)


@pytest.mark.usefixtures("hurried")
class TestLiar:
    @pytest.mark.parametrize("lie", LIES)
    async def test_hurts_only_itself(self, world, tmp_path, lie) -> None:
        box, other = await world.create(), await world.create()
        before = _resident()
        async with lied_to(world, box, tmp_path, LIES[lie]):
            calls = [
                in_time(call(world.host, box), ENOUGH if (name, lie) in ENDLESS else IN_TIME)
                for name, call in CALLS.items()
            ]
            ends = asyncio.gather(*calls, return_exceptions=True)
            assert await world.sh(other, "echo fine") == "fine"
            for name, end in zip(CALLS, await ends, strict=True):
                if end is None and name in TAKEN_AT_ITS_WORD:
                    continue
                if isinstance(end, TimeoutError) and (name, lie) in ENDLESS:
                    continue
                assert isinstance(end, GuestUnreachable), (name, end)
            assert _resident() - before < 512
            await world.host.idle.look()
            assert world.look(box).state == "running"
            assert await world.sh(other, "echo still") == "still"
            # It can be put away, is not handed out again by a lie, and can be ended.
            assert (await world.pause(box)).state == "paused"
            with pytest.raises(GuestUnreachable):
                await in_time(world.resume(box))
            assert world.look(box).state == "paused"
            assert (await world.destroy(box)).state == "stopped"
        await until(lambda: not (world.folder(box) / "1").exists())

    async def test_is_followed_no_longer_where_it_stalls_behind_each_good_piece(
        self, world, tmp_path
    ) -> None:
        """Asked again it sends one more."""
        box, asked = await world.create(), []

        async def stalls(liar: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
            writer.write(HELLO)
            await liar.next(reader)
            for at in (len(asked), len(asked) + 1):
                head = {"ok": {"offset": at, "dropped": 0, "size": 1}}
                writer.write(protocol.frame(JSON, json.dumps(head).encode()))
                if at == len(asked):
                    writer.write(protocol.frame(BYTES, b"x"))
            asked.append(box)
            await reader.read()

        async with lied_to(world, box, tmp_path, stalls):
            items = world.host.follow_output(box, "prc_1", "output", 0)
            assert (await anext(items)).data == b"x"
            with pytest.raises(GuestUnreachable):
                await in_time(anext(items))
            assert len(asked) == 1
        assert world.look(box).state == "running"


def _resident() -> int:
    """MB of this process, the host in it included."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024
