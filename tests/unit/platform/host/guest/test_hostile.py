"""What answers in the agent's place may send anything: it is refused by name, and in time."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtools import errors
from runtools.guest import protocol
from runtools.guest.protocol import BYTES, END, HEADER, JSON
from runtools.platform.host.guest import wire
from runtools.platform.host.guest.identity import Identity
from runtools.sdk.shapes.inside import ExecRequest

from .conftest import Impostor

EXEC = ExecRequest(command="true", cwd="/", timeout_ms=300)
RAN = {
    "exit_code": 0,
    "signal": None,
    "duration_ms": 1.0,
    "timed_out": False,
    "truncated": False,
    "stdout": 0,
    "stderr": 0,
}
CHANGE = {"kind": "create", "path": "/t/a", "source": None, "folder": False}
ENTRY = {
    "path": "/f",
    "kind": "file",
    "size": 4,
    "mode": 0o644,
    "owner": "root",
    "group": "root",
    "modified": 1.0,
    "target": None,
}


def ok(answer: Any) -> bytes:
    return protocol.frame(JSON, json.dumps({"ok": answer}).encode())


def _nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)


GARBAGE = [
    b"HTTP/1.1 200 OK\r\n\r\n",
    HEADER.pack(0xFFFFFFFF, JSON),
    HEADER.pack(protocol.MAX_JSON + 1, JSON),
    HEADER.pack(10, 99) + bytes(10),
    protocol.frame(BYTES, b"unasked"),
    protocol.frame(END),
    protocol.frame(JSON, b"not json"),
    protocol.frame(JSON, b"\xff\xfe"),
    protocol.frame(JSON, b"[]"),
    protocol.frame(JSON, b"{}"),
    protocol.frame(JSON, b'{"ok":null}'),
    protocol.frame(JSON, b"[" * 100_000),
    protocol.frame(JSON, b'{"ok":' * 100_000),
    protocol.frame(JSON, b'{"error":7}'),
    protocol.frame(JSON, b'{"error":{"code":7,"message":"x"}}'),
    protocol.frame(JSON, b'{"error":{"code":"internal","message":"x"}}'),
    protocol.frame(JSON, b'{"error":{"code":"unauthenticated","message":"x"}}'),
    protocol.frame(JSON, b'{"ok":{"exit_code":NaN}}'),
    protocol.frame(JSON, b'{"ok":{"exit_code":' + b"9" * 5000 + b"}}"),
]


class TestHello:
    @pytest.mark.parametrize("garbage", [*GARBAGE, ok({"version": 9, "boot": "", "features": {}})])
    async def test_garbage(self, impostor: Impostor, garbage: bytes) -> None:
        impostor.hello = garbage
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().hello()

    async def test_an_agent_of_other_versions(self, impostor: Impostor) -> None:
        error = {"code": "version_mismatch", "message": "speaks [9]", "hint": "build anew"}
        impostor.hello = protocol.frame(JSON, json.dumps({"error": error}).encode())
        with pytest.raises(errors.GuestMisbehaved, match=r"speaks \[9\].*build anew"):
            await impostor.client().hello()

    async def test_silence(self, impostor: Impostor) -> None:
        impostor.hello = None
        await _in_time(impostor.client().hello())

    async def test_a_slow_drip(self, impostor: Impostor) -> None:
        impostor.hello = protocol.frame(JSON, b"{}")[:-1]
        await _in_time(impostor.client().hello())


class TestWatch:
    @pytest.mark.parametrize(
        "said",
        [
            *GARBAGE,
            ok({"last": 4, "lost": False, "changes": []}),
            ok({"last": -1, "lost": True, "changes": []}),
            ok({"last": 9, "lost": False, "changes": [{"kind": "create", "path": "/a"}]}),
            ok({"last": 6, "lost": False, "changes": [CHANGE | {"kind": "armed"}]}),
            ok({"last": 6, "lost": False, "changes": [CHANGE | {"path": "x" * 20_000}]}),
            ok({"last": 1006, "lost": False, "changes": [CHANGE] * 1001}),
            ok({"last": 5, "lost": False, "changes": []}),  # at once: it was to wait
        ],
    )
    async def test_garbage(self, impostor: Impostor, said: bytes) -> None:
        impostor.answers(said)
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().watch("s", "/t", True, 5, wait=True)

    async def test_silence(self, impostor: Impostor) -> None:
        await _in_time(impostor.client().watch("s", "/t", True, 5, wait=True))


class TestExec:
    @pytest.mark.parametrize("garbage", GARBAGE)
    async def test_garbage(self, impostor: Impostor, garbage: bytes) -> None:
        impostor.answers(garbage)
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().exec(EXEC)

    @pytest.mark.parametrize(
        "change",
        [
            {"exit_code": 256},
            {"exit_code": -1},
            {"exit_code": "0"},
            {"exit_code": True},
            {"signal": 65},
            {"duration_ms": -1},
            {"duration_ms": 1e300},
            {"timed_out": "no"},
            {"stdout": -1},
            {"stdout": 1 << 40},
            {"stderr": 1 << 30},
        ],
    )
    async def test_values_out_of_bounds(self, impostor: Impostor, change: dict[str, Any]) -> None:
        impostor.answers(ok(RAN | change) + protocol.frame(END))
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().exec(EXEC)

    async def test_more_output_than_was_said(self, impostor: Impostor) -> None:
        impostor.answers(ok(RAN | {"stdout": 3}), *protocol.body_frames(b"1234"))
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().exec(EXEC)

    async def test_less_output_than_was_said(self, impostor: Impostor) -> None:
        impostor.answers(ok(RAN | {"stdout": 3}), *protocol.body_frames(b"12"))
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().exec(EXEC)

    async def test_more_output_than_was_asked_for(self, impostor: Impostor) -> None:
        impostor.answers(ok(RAN | {"stdout": 300}), *protocol.body_frames(bytes(300)))
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().exec(EXEC.model_copy(update={"max_output_bytes": 100}))

    async def test_frames_without_bytes_for_ever(self, impostor: Impostor) -> None:
        impostor.answers(ok(RAN | {"stdout": 3}), *[protocol.frame(BYTES)] * 100)
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().exec(EXEC)

    async def test_silence(self, impostor: Impostor) -> None:
        await _in_time(impostor.client().exec(EXEC))

    async def test_a_connection_that_is_always_cut(self, impostor: Impostor) -> None:
        async def cut(_: Impostor, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        impostor.act = cut
        await _in_time(impostor.client().exec(EXEC))
        assert 2 < impostor.connections < 50  # it was asked again, but not hammered
        assert len({r["id"] for r in impostor.requests}) == 1

    async def test_an_answer_that_never_ends(self, impostor: Impostor) -> None:
        async def drip(_: Impostor, writer: asyncio.StreamWriter) -> None:
            for byte in ok(RAN):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.2)

        impostor.act = drip
        await _in_time(impostor.client().exec(EXEC))


class TestStreams:
    async def test_a_body_longer_than_the_file(self, impostor: Impostor) -> None:
        opened = ok({"entry": ENTRY, "start": 0, "end": 4})
        impostor.answers(opened, *protocol.body_frames(b"12345"))
        _, stream = await impostor.client().read("/f")
        with pytest.raises(errors.GuestMisbehaved):
            [piece async for piece in stream]

    async def test_a_body_shorter_than_the_file(self, impostor: Impostor) -> None:
        opened = ok({"entry": ENTRY, "start": 0, "end": 4})
        impostor.answers(opened, *protocol.body_frames(b"123"))
        _, stream = await impostor.client().read("/f")
        with pytest.raises(errors.GuestMisbehaved):
            [piece async for piece in stream]

    @pytest.mark.parametrize(("start", "end"), [(0, 100), (3, 1), (2, 4), (0, 1 << 60)])
    async def test_another_range_than_was_asked(
        self, impostor: Impostor, start: int, end: int
    ) -> None:
        impostor.answers(ok({"entry": ENTRY, "start": start, "end": end}))
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().read("/f", 1, 2)

    async def test_a_body_that_stalls(self, impostor: Impostor) -> None:
        impostor.answers(ok({"entry": ENTRY, "start": 0, "end": 4}))
        client = impostor.client()
        _, stream = await client.read("/f")
        await _in_time(anext(stream))
        assert not client._pool._used

    async def test_a_body_that_drips(self, impostor: Impostor) -> None:
        async def drip(_: Impostor, writer: asyncio.StreamWriter) -> None:
            writer.write(ok({"entry": ENTRY, "start": 0, "end": 4000}))
            while True:
                writer.write(protocol.frame(BYTES, b"x"))
                await asyncio.sleep(0.05)

        impostor.act = drip
        _, stream = await impostor.client().read("/f")

        async def all_of_it() -> None:
            async for _ in stream:
                pass

        await _in_time(all_of_it())

    async def test_an_error_at_the_end_is_the_error(self, impostor: Impostor) -> None:
        opened = ok({"entry": ENTRY, "start": 0, "end": 4})
        error = {"error": {"code": "file_error", "message": "it became shorter"}}
        impostor.answers(opened, protocol.frame(END, json.dumps(error).encode()))
        _, stream = await impostor.client().read("/f")
        with pytest.raises(errors.FileError, match="shorter"):
            await anext(stream)

    async def test_nobody_reads_what_is_sent(self, impostor: Impostor) -> None:
        async def deaf(_: Impostor, writer: asyncio.StreamWriter) -> None:
            writer.write(protocol.frame(JSON, b'{"go":true}'))
            await asyncio.Event().wait()

        async def endless() -> Any:
            while True:
                yield bytes(1 << 20)

        impostor.act = deaf
        await _in_time(impostor.client().write("o", "/f", endless()))


class TestOthers:
    async def test_entries_out_of_bounds(self, impostor: Impostor) -> None:
        for change in (
            {"path": "x" * 20_000},
            {"kind": "dragon"},
            {"size": -1},
            {"mode": 0o10000},
            {"modified": 1e30},
            {"owner": "o" * 300},
        ):
            impostor.answers(ok(ENTRY | change))
            with pytest.raises(errors.GuestMisbehaved):
                await impostor.client().stat("/f")

    async def test_a_listing_that_is_too_long(self, impostor: Impostor) -> None:
        impostor.answers(ok({"entries": [ENTRY] * 10_001, "truncated": False}))
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().list("/", 1)

    async def test_ports_that_are_none(self, impostor: Impostor) -> None:
        measured = dict.fromkeys(
            ("memory_used", "memory_total", "disk_used", "disk_total", "processes"), 1
        ) | {"cpu_percent": 1.0, "uptime": 1.0, "ports": [70_000]}
        impostor.answers(ok(measured))
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().stats()

    async def test_renewal_is_asked_once(self, impostor: Impostor) -> None:
        identity = Identity.make(hostname="s", env={}, ssh_keys=[], password_hash=None, fresh=False)
        await _in_time(impostor.client().renew(identity))
        assert len(impostor.requests) == 1

    def test_error_texts_are_cut(self) -> None:
        error = {
            "code": "file_error",
            "message": "m" * 10_000,
            "hint": "h" * 10_000,
            "details": {"k" * 500: "v" * 10_000, "list": [1], "n": 1 << 70}
            | {f"{n}": n for n in range(100)},
        }
        made = wire.problem({"error": error})
        assert isinstance(made, errors.FileError)
        assert len(made.message) <= 2000
        assert len(str(made.details)) < 4000

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), _nest))
    @settings(suppress_health_check=[HealthCheck.too_slow])
    def test_any_json_is_an_answer_or_misbehaviour(self, said: Any) -> None:
        for kind in (wire.Ran, wire.Entry, wire.Entries, wire.Measured, wire.Renewed, wire.Hello):
            with pytest.raises(errors.RunToolsError):
                wire.answer({"ok": said}, kind)
            with pytest.raises(errors.RunToolsError):
                wire.answer({"error": said}, kind)


HELD = {
    "id": "a",
    "command": "true",
    "cwd": "/",
    "user": "root",
    "started": 1.0,
    "pid": 7,
    "rows": 0,
    "columns": 0,
    "state": "running",
    "exit_code": None,
    "signal": None,
    "ended": None,
    "input_open": True,
    "output": [0, 4],
    "stdout": [0, 4],
    "stderr": [0, 0],
}
OVER = HELD | {"state": "ended", "exit_code": 0, "ended": 2.0, "pid": None}


class TestProcesses:
    @pytest.mark.parametrize("garbage", GARBAGE)
    async def test_garbage(self, impostor: Impostor, garbage: bytes) -> None:
        impostor.answers(garbage)
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().processes.get("a")
        with pytest.raises(errors.GuestMisbehaved):
            await anext(impostor.client().processes.follow("a", "output", 0))

    @pytest.mark.parametrize(
        "change",
        [
            {"id": "b"},
            {"id": "a/../b"},
            {"command": "x" * 5000},
            {"command": ["x"] * 5000},
            {"state": "asleep"},
            {"state": "ended"},
            {"state": "lost", "exit_code": 0},
            {"exit_code": 0},
            {"ended": 1.0},
            {"ended": 1e300},
            {"pid": 0},
            {"rows": 5},
            {"rows": 2000, "columns": 1},
            {"output": [5, 4]},
            {"output": [0]},
            {"output": [-1, 4]},
            {"stdout": [0, 1 << 70]},
            {"input_open": "yes"},
        ],
    )
    async def test_values_out_of_bounds(self, impostor: Impostor, change: dict[str, Any]) -> None:
        impostor.answers(ok(HELD | change))
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().processes.get("a")

    @pytest.mark.parametrize(
        "said",
        [
            [ok({"offset": 5, "dropped": 0, "size": 1}), protocol.frame(BYTES, b"x")],
            [ok({"offset": 0, "dropped": 0, "size": 0})],
            [ok({"offset": 0, "dropped": 0, "size": 2}), protocol.frame(BYTES, b"x")],
            [ok({"offset": 0, "dropped": 0, "size": 1}), protocol.frame(JSON, b"{}")],
            [ok({"offset": 0, "dropped": 0, "size": 1 << 30})],
            [ok({"offset": 0, "size": 1})],
            [ok({"end": 3, "process": OVER})],
            [ok({"end": 0, "process": HELD})],
            [ok({"end": 0, "process": OVER | {"id": "b"}})],
        ],
    )
    async def test_streams_that_cannot_be(self, impostor: Impostor, said: list[bytes]) -> None:
        impostor.answers(*said)
        with pytest.raises(errors.GuestMisbehaved):
            await anext(impostor.client().processes.follow("a", "output", 0))

    async def test_a_read_of_other_bytes(self, impostor: Impostor) -> None:
        impostor.answers(ok({"offset": 0, "dropped": 0, "size": 4}), protocol.frame(BYTES, b"1234"))
        assert (await impostor.client().processes.read("a", "output", 0, 4)).data == b"1234"
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().processes.read("a", "output", 0, 3)
        with pytest.raises(errors.GuestMisbehaved):
            await impostor.client().processes.read("a", "output", 1, 4)

    async def test_a_list_without_end(self, impostor: Impostor) -> None:
        for after in (0, 1):
            impostor.answers(ok({"processes": [HELD], "next": after}))
            with pytest.raises(errors.GuestMisbehaved):
                await impostor.client().processes.list()

    async def test_a_piece_that_stalls(self, impostor: Impostor) -> None:
        impostor.answers(ok({"offset": 0, "dropped": 0, "size": 1}))
        await _in_time(anext(impostor.client().processes.follow("a", "output", 0)))


async def _in_time(awaited: Any) -> None:
    began = time.monotonic()
    with pytest.raises(errors.GuestUnreachable):
        await awaited
    assert time.monotonic() - began < 5
