"""Dev URLs over real servers: what HTTP does goes through, and who may enter is asked for each request."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.server import ServerConnection

from runtools.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    GuestUnreachable,
    QuotaExceeded,
    SandboxStopped,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.core.ports.reach_wire import pack_answer
from runtools.platform.gateway import rousing
from runtools.platform.gateway.reach import HostReach
from runtools.platform.gateway.web import reloads
from runtools.platform.gateway.web.framing import LAST_CHUNK
from runtools.platform.gateway.web.visit import Visit
from runtools.testing.api_world import holds
from runtools.testing.gateway_world import BOX, KEY, LINK, OTHER, Gateway, gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")
MB = 1 << 20

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


WINDOW = ("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
FRAME = ("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe")
_servers: list[asyncio.Server] = []


@pytest_asyncio.fixture(loop_scope="module")
async def gate() -> AsyncIterator[Gateway]:
    async with gateway() as made:
        yield made
    while _servers:
        _servers.pop().close()


async def server(serve: Serve) -> int:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    made = await asyncio.start_server(closing, "127.0.0.1", 0)
    _servers.append(made)
    return int(made.sockets[0].getsockname()[1])


def head(
    gate: Gateway, port: int, *more: str, first: str = "GET / HTTP/1.1", key: str = KEY
) -> bytes:
    shown = [f"X-RunTools-Key: {key}"] if key else []
    return "\r\n".join([first, f"Host: {gate.host(port)}", *shown, *more, "", ""]).encode()


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request with its own head and body."""
    while True:
        said = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in said.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        said += await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """An answer's head and body."""
    said = await reader.readuntil(b"\r\n\r\n")
    for line in said.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return said, await reader.readexactly(int(line.partition(b":")[2]))
    return said, b""


class TestHttp:
    async def test_requests_follow_each_other_on_both_connections(self, gate: Gateway) -> None:
        port = await server(mirror)
        reader, writer = await gate.connect()
        for n in range(50):
            writer.write(head(gate, port, f"X-N: {n}"))
            assert f"X-N: {n}\r\n".encode() in (await answer(reader))[1]
        assert gate.reach.opened == [(BOX, port)]
        assert len(gate.admitting.asked) <= 3
        writer.close()

    async def test_requests_that_come_at_once_are_answered_in_turn(self, gate: Gateway) -> None:
        port = await server(mirror)
        reader, writer = await gate.connect()
        body = "Content-Length: 5"
        writer.write(
            b"".join(
                head(gate, port, f"X-N: {n}", body, first="POST / HTTP/1.1") + b"hello"
                for n in range(9)
            )
        )
        for n in range(9):
            _, said = await answer(reader)
            assert said.endswith(b"hello")
            assert f"X-N: {n}\r\n".encode() in said
        writer.close()

    async def test_one_connection_may_ask_for_several_sandboxes(self, gate: Gateway) -> None:
        """As a proxy before the gateway does."""
        port = await server(mirror)
        reader, writer = await gate.connect()
        for box in (BOX, OTHER, BOX, OTHER):
            said = head(gate, port).replace(BOX.encode(), box.encode())
            writer.write(said)
            assert f"X-Forwarded-Host: {gate.host(port, box)}".encode() in (await answer(reader))[1]
        # ... and each request is judged by itself.
        writer.write(head(gate, port, key=""))
        assert (await answer(reader))[0].startswith(b"HTTP/1.1 404 ")
        writer.close()

    async def test_the_server_believes_itself_on_its_own_machine(self, gate: Gateway) -> None:
        port = await server(mirror)
        more = ["X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6"]
        said = await gate.say(head(gate, port, *more))
        assert f"Host: localhost:{port}\r\n".encode() in said
        assert b"6.6.6.6" not in said
        assert b"X-Forwarded-For: 127.0.0.1\r\n" in said
        assert b"X-Forwarded-Proto: http\r\n" in said

    async def test_a_trusted_proxy_is_believed(self) -> None:
        async with gateway(proxies="127.0.0.0/8") as gate:
            port = await server(mirror)
            said = await gate.say(head(gate, port, "X-Forwarded-For: 6.6.6.6, 9.9.9.9"))
            assert b"X-Forwarded-For: 9.9.9.9\r\n" in said

    async def test_redirects_of_the_server_lead_outside(self, gate: Gateway) -> None:
        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            where = f"http://localhost:{port}/in?a=1"
            writer.write(
                f"HTTP/1.1 302 F\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()
            )

        port = await server(redirect)
        said = await gate.say(head(gate, port))
        assert f"Location: http://{gate.host(port)}/in?a=1\r\n".encode() in said

    async def test_chunks_and_trailers_go_as_they_are_both_ways(self, gate: Gateway) -> None:
        sent = b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                body = await reader.readuntil(b"0\r\nX-Sum: 1\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)

        port = await server(echo)
        reader, writer = await gate.connect()
        for _ in range(2):
            writer.write(head(gate, port, "Transfer-Encoding: chunked", first="POST / HTTP/1.1"))
            for byte in sent:  # however they are cut
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(sent)) == sent
        writer.close()

    async def test_events_come_as_they_are_sent(self, gate: Gateway) -> None:
        go = asyncio.Event()

        async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await go.wait()
            writer.write(b"data: 2\n\n")

        port = await server(events)
        reader, writer = await gate.connect()
        writer.write(head(gate, port))
        assert b"Transfer-Encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"\n\n\r\n") == b"9\r\ndata: 1\n\n\r\n"
        go.set()
        assert await reader.readuntil(LAST_CHUNK) == b"9\r\ndata: 2\n\n\r\n" + LAST_CHUNK
        writer.write(head(gate, await server(mirror)))  # ... and the connection goes on
        assert b"GET / HTTP/1.1" in (await answer(reader))[1]
        writer.close()

    async def test_who_knows_no_chunks_has_it_as_it_comes(self, gate: Gateway) -> None:
        async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * MB)

        said = await gate.say(head(gate, await server(ends), first="GET / HTTP/1.0"))
        assert said.endswith(b"\r\nConnection: close\r\n\r\n" + b"x" * MB)

    async def test_so_has_it_who_knows_none_and_is_sent_some(self, gate: Gateway) -> None:
        size = 8 * MB

        async def chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for n in range(0, size, 1 << 16):
                writer.write(b"%x\r\n%b\r\n" % (1 << 16, bytes([n >> 16]) * (1 << 16)))
                await writer.drain()
            writer.write(b"0\r\nX-Sum: 1\r\n\r\n")
            await reader.read()

        said = await gate.say(head(gate, await server(chunks), first="GET / HTTP/1.0"))
        first, _, body = said.partition(b"\r\n\r\n")
        assert first == b"HTTP/1.1 200 OK\r\nConnection: close"
        assert body == b"".join(bytes([n]) * (1 << 16) for n in range(size >> 16))

    async def test_chunks_that_break_off_are_no_end_to_who_knows_none(self, gate: Gateway) -> None:
        async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            await go.wait()
            writer.write(b"no chunk\r\n")
            await reader.read()

        go = asyncio.Event()
        reader, writer = await gate.connect()
        writer.write(head(gate, await server(breaks), first="GET / HTTP/1.0"))
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"half")).endswith(b"\r\n\r\nhalf")
            go.set()
            with pytest.raises(ConnectionResetError):
                await reader.read()

    async def test_what_a_server_says_in_between_is_handed_on(self, gate: Gateway) -> None:
        async def careful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(5)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)

        port = await server(careful)
        reader, writer = await gate.connect()
        writer.write(
            head(gate, port, "Expect: 100-continue", "Content-Length: 5", first="PUT / HTTP/1.1")
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"hello")
        assert (await answer(reader))[1] == b"hello"
        writer.close()

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "200 OK"])
    async def test_answers_without_a_body_end_where_they_do(
        self, gate: Gateway, status: str
    ) -> None:
        async def empty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                length = "Content-Length: 5\r\n" if not status.startswith("204") else ""
                writer.write(f"HTTP/1.1 {status}\r\n{length}\r\n".encode())

        port = await server(empty)
        reader, writer = await gate.connect()
        method = "HEAD" if status.startswith("200") else "GET"
        for _ in range(3):
            writer.write(head(gate, port, first=f"{method} / HTTP/1.1"))
            said = await reader.readuntil(b"\r\n\r\n")
            assert said.startswith(f"HTTP/1.1 {status}".encode())
        writer.close()

    async def test_old_clients_are_answered_too(self, gate: Gateway) -> None:
        port = await server(mirror)
        said = await gate.say(head(gate, port, first="GET / HTTP/1.0"))
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"GET / HTTP/1.1\r\n" in said

    async def test_an_idle_connection_that_the_server_has_closed_is_made_anew(
        self, gate: Gateway
    ) -> None:
        count = 0

        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % count)
            await reader.readuntil(b"\r\n\r\n")  # closes where the next one is asked for

        port = await server(one)
        reader, writer = await gate.connect()
        for n in (1, 2):
            writer.write(head(gate, port))
            assert (await answer(reader))[1] == b"%d" % n
        writer.close()


class TestBodies:
    async def test_gigabytes_go_through_in_little_memory(self, gate: Gateway) -> None:
        """64 MB here, in both directions at once, with a slow end on either side at times."""
        size = 64 * MB

        async def back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            left = size
            while left:
                piece = await reader.read(MB)
                left -= len(piece)
                writer.write(piece)
                await writer.drain()

        port = await server(back)
        reader, writer = await gate.connect()
        block = os.urandom(MB)
        writer.write(head(gate, port, f"Content-Length: {size}", first="POST / HTTP/1.1"))

        async def send() -> None:
            for _ in range(size // MB):
                writer.write(block)
                await writer.drain()

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sending = asyncio.create_task(send())
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.wait({sending}, timeout=0.3)  # nobody reads meanwhile
        digest, wanted = hashlib.sha256(), hashlib.sha256()
        left = size
        while left:
            piece = await reader.read(MB)
            digest.update(piece)
            left -= len(piece)
        for _ in range(size // MB):
            wanted.update(block)
        assert digest.digest() == wanted.digest()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 40 * 1024, f"{grown} KB"
        await sending
        writer.close()

    async def test_a_server_that_writes_for_ever_stops_where_nobody_reads(
        self, gate: Gateway
    ) -> None:
        sent = 0

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * MB)
                await writer.drain()
                sent += MB

        port = await server(flood)
        reader, writer = await gate.connect()
        writer.write(head(gate, port))
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.5)
        assert sent < 32 * MB
        writer.transport.abort()

    async def test_an_answer_before_the_whole_request_ends_the_connection(
        self, gate: Gateway
    ) -> None:
        async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig")
            await reader.read(1)

        port = await server(refuses)
        reader, writer = await gate.connect()
        writer.write(head(gate, port, "Content-Length: 99999999", first="POST / HTTP/1.1"))
        assert (await answer(reader))[1] == b"big"
        assert await reader.read() == b""
        writer.close()

    async def test_a_broken_answer_is_not_passed_off_as_whole(self, gate: Gateway) -> None:
        async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

        port = await server(breaks)
        reader, writer = await gate.connect()
        writer.write(head(gate, port))
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(10)
        writer.close()

    async def test_a_host_that_is_killed_in_an_upload_is_told_of(self, tmp_path: Path) -> None:
        async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            size = int.from_bytes(await reader.readexactly(4), "big")
            await reader.readexactly(size)
            writer.write(pack_answer())
            await reader.readexactly(3 * MB)
            writer.transport.abort()

        served = await asyncio.start_unix_server(host, tmp_path / "reach.sock")
        async with gateway(HostReach(tmp_path / "reach.sock")) as gate:
            reader, writer = await gate.connect()
            writer.write(head(gate, 3000, f"Content-Length: {100 * MB}", first="POST / HTTP/1.1"))
            writer.write(b"x" * (3 * MB))
            async with asyncio.timeout(20):
                said = await reader.read()
            assert said.startswith(b"HTTP/1.1 502 ")
            assert b"broke off without an answer" in said.lower()
            assert (await gate.say(head(gate, 3000, key=""))).startswith(b"HTTP/1.1 404 ")
        served.close()
        await served.wait_closed()

    async def test_nor_is_one_that_the_gateway_breaks_off(self, gate: Gateway) -> None:
        """Its end alone would tell, and whoever may not stay any more has not had all of it."""

        async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            await reader.read()
            writer.close()

        reader, writer = await gate.connect()
        writer.write(head(gate, await server(endless)))
        async with asyncio.timeout(20):
            await reader.readuntil(b"half")
            gate.admitting.secrets.clear()
            with pytest.raises(ConnectionResetError):
                await reader.read()

    @pytest.mark.parametrize("kills", [False, True])
    async def test_nor_is_one_whose_end_is_the_connections(
        self, tmp_path: Path, kills: bool
    ) -> None:
        """By the host's socket: what is lost with sandbox or host was not ended before."""
        go = asyncio.Event()

        async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            size = int.from_bytes(await reader.readexactly(4), "big")
            await reader.readexactly(size)
            writer.write(pack_answer())
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            await go.wait()
            if not kills:
                writer.write_eof()
                await reader.read()
            writer.close()

        served = await asyncio.start_unix_server(host, tmp_path / "reach.sock")
        async with gateway(HostReach(tmp_path / "reach.sock")) as gate:
            reader, writer = await gate.connect()
            writer.write(head(gate, 3000))
            async with asyncio.timeout(20):
                assert (await reader.readuntil(b"half")).startswith(b"HTTP/1.1 200 ")
                go.set()
                if kills:
                    with pytest.raises(ConnectionResetError):
                        await reader.readuntil(LAST_CHUNK)
                else:
                    assert await reader.readuntil(LAST_CHUNK) == b"\r\n" + LAST_CHUNK
        served.close()
        await served.wait_closed()


class TestWebSockets:
    async def test_they_talk_and_end_by_themselves(self, gate: Gateway) -> None:
        heads: list[str] = []

        async def talk(sock: ServerConnection) -> None:
            assert sock.request is not None
            heads.extend(f"{name}: {value}" for name, value in sock.request.headers.raw_items())
            async for message in sock:
                await sock.send(message)

        async with websockets.serve(talk, "127.0.0.1", 0, max_size=None) as served:
            port = next(iter(served.sockets)).getsockname()[1]
            own = f"http://{gate.host(port)}"
            async with websockets.connect(
                f"ws://{gate.host(port)}/",
                host="127.0.0.1",
                additional_headers={"X-RunTools-Key": KEY},
                origin=own,  # type: ignore[arg-type]
                max_size=None,
            ) as sock:
                for message in ("hello", b"\0" * (4 * MB), ""):
                    await sock.send(message)
                    assert await sock.recv() == message
            assert f"Host: localhost:{port}" in heads
            assert f"Origin: http://localhost:{port}" in heads
            assert not any(KEY in line for line in heads)

    async def test_bytes_right_after_the_head_are_not_lost(self, gate: Gateway) -> None:
        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said = await reader.readuntil(b"\r\n\r\n")
            key = base64.b64encode(hashlib.sha1(said).digest())
            writer.write(
                b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\nK: %b\r\n\r\nfirst"
                % key
            )
            writer.write(await reader.readexactly(5))
            writer.write_eof()
            await reader.read()

        port = await server(shout)
        reader, writer = await gate.connect()
        writer.write(head(gate, port, "Connection: Upgrade", "Upgrade: x") + b"early")
        said = await reader.readuntil(b"\r\n\r\n")
        assert b"Connection: Upgrade" in said or b"Upgrade: x" in said
        assert await reader.read() == b"firstearly"
        writer.close()

    async def test_a_session_that_ends_ends_what_it_opened(self, gate: Gateway) -> None:
        async with _repeating(gate) as sock:
            await sock.send("x")
            assert await sock.recv() == "x"
            gate.admitting.secrets.clear()
            async with asyncio.timeout(60):
                with pytest.raises(websockets.ConnectionClosed):
                    await sock.recv()


class TestAccess:
    async def test_unknown_foreign_and_private_get_one_answer(self, gate: Gateway) -> None:
        port = await server(mirror)
        unknown = head(gate, port, key="").replace(BOX.encode(), b"sandbox-zzzzzzzzzzzz")
        nowhere = head(gate, port, key="").replace(f"{port}-{BOX}".encode(), b"what")
        wrong = head(gate, port, key="rt_live_wrong")
        asked = [
            unknown,
            nowhere,
            wrong,
            head(gate, port, key=""),
            head(gate, 22),
            head(gate, 7709),
        ]
        answers = {await gate.say(one) for one in asked}
        assert len(answers) == 1
        assert answers.pop().startswith(b"HTTP/1.1 404 ")
        assert gate.reach.opened == []

    async def test_public_is_for_everybody(self, gate: Gateway) -> None:
        port = await server(mirror)
        gate.admitting.public.add((BOX, port))
        assert (await gate.say(head(gate, port, key=""))).startswith(b"HTTP/1.1 200 ")

    @pytest.mark.parametrize(
        "field",
        [
            f"X-RunTools-Key: {KEY}",
            f"X-API-Key: {KEY}",
            f"Authorization: Bearer {KEY}",
            f"X-RunTools-Key: {LINK}",
            f"Cookie: a=1; __Host-runtools-dev={LINK}; b=2",
        ],
    )
    async def test_what_opens_stays_outside(self, gate: Gateway, field: str) -> None:
        port = await server(mirror)
        said = await gate.say(head(gate, port, field, "Sec-Fetch-Site: none", key=""))
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"rt_l" not in said
        assert (b"Cookie: a=1; b=2" in said) is ("b=2" in field)

    async def test_no_other_sandbox_pushes_the_cookie_out(self, gate: Gateway) -> None:
        """Its pages may set cookies for all of them, but none of the name that counts."""
        port = await server(mirror)
        cookies = "; ".join([f"runtools-dev=rt_link_{n}" for n in range(9)])
        field = f"Cookie: {cookies}; __Host-runtools-dev={LINK}"
        said = await gate.say(head(gate, port, field, "Sec-Fetch-Site: none", key=""))
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"runtools-dev" not in said
        plain = head(gate, port, f"Cookie: runtools-dev={LINK}", "Sec-Fetch-Site: none", key="")
        assert (await gate.say(plain)).startswith(b"HTTP/1.1 404 ")
        gate.house.urls = replace(gate.house.urls, domain="sandboxes.example.com")
        plain = plain.replace(b"sandboxes.localhost", b"sandboxes.example.com")
        said = await gate.say(plain)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"rt_link" not in said

    async def test_what_is_not_ours_goes_in(self, gate: Gateway) -> None:
        port = await server(mirror)
        fields = ["Authorization: Bearer theirs", "X-API-Key: theirs", "Cookie: session=1"]
        said = await gate.say(head(gate, port, *fields))
        assert all(field.encode() in said for field in fields)

    async def test_a_link_becomes_a_cookie_of_its_origin(self, gate: Gateway) -> None:
        port = await server(mirror)
        first = f"GET /a?b=1&runtools-link={LINK}&c=2 HTTP/1.1"
        said = await gate.say(head(gate, port, "Sec-Fetch-Mode: navigate", first=first, key=""))
        assert said.startswith(b"HTTP/1.1 303 ")
        assert f"Location: http://{gate.host(port)}/a?b=1&c=2\r\n".encode() in said
        [line] = [one for one in said.split(b"\r\n") if one.startswith(b"Set-Cookie")]
        assert line.startswith(
            f"Set-Cookie: __Host-runtools-dev={LINK}; Path=/; Max-Age=60;".encode()
        )
        assert b"HttpOnly; SameSite=Lax; Secure" in line
        assert gate.reach.opened == []

    async def test_a_link_opens_for_programs_as_it_stands(self, gate: Gateway) -> None:
        port = await server(mirror)
        first = f"POST /?runtools-link={LINK} HTTP/1.1"
        said = await gate.say(head(gate, port, "Content-Length: 2", first=first, key="") + b"hi")
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"POST / HTTP/1.1\r\n" in said
        assert said.endswith(b"hi")

    async def test_a_link_stands_in_no_request_of_its_page(self, gate: Gateway) -> None:
        async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nreferrer-policy: unsafe-url\r\n\r\n"
            )

        port = await server(page)
        first = f"POST /?runtools-link={LINK} HTTP/1.1"
        said = await gate.say(head(gate, port, "Content-Length: 0", first=first, key=""))
        assert b"\r\nReferrer-Policy: no-referrer\r\n" in said
        assert b"unsafe-url" not in said
        port = await server(mirror)
        referer = f"Referer: http://{gate.host(port)}/a?b=1&runtools-link={LINK}&c=2"
        said = await gate.say(head(gate, port, referer))
        assert f"Referer: http://{gate.host(port)}/a?b=1&c=2\r\n".encode() in said
        assert LINK.encode() not in said

    async def test_a_person_is_sent_to_sign_in_whatever_there_is(self, gate: Gateway) -> None:
        fields = ["Sec-Fetch-Mode: navigate", "Accept: text/html"]
        said = [
            await gate.say(
                head(gate, 3000, *fields, first="GET /a?b=1 HTTP/1.1", key="").replace(
                    BOX.encode(), box
                )
            )
            for box in (BOX.encode(), b"sandbox-zzzzzzzzzzzz")
        ]
        assert all(one.startswith(b"HTTP/1.1 303 ") for one in said)
        assert said[0].replace(BOX.encode(), b"") == said[1].replace(b"sandbox-zzzzzzzzzzzz", b"")
        assert b"Location: http://localhost:7700/open?to=http%3A%2F%2F3000-" in said[0]

    async def test_a_frame_is_not_sent_to_sign_in(self, gate: Gateway) -> None:
        said = await gate.say(head(gate, 3000, *FRAME, "Sec-Fetch-Site: same-site", key=""))
        assert said.startswith(b"HTTP/1.1 404 ")

    async def test_who_comes_back_in_vain_is_not_sent_again(self, gate: Gateway) -> None:
        first = "GET /?runtools-link=rt_link_old HTTP/1.1"
        said = await gate.say(head(gate, 3000, "Sec-Fetch-Mode: navigate", first=first, key=""))
        assert said.startswith(b"HTTP/1.1 404 ")

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            (["Origin: http://3000-sandbox-evilevilevil.sandboxes.localhost"], 404),
            (["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"], 404),
            (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"], 404),
            (["Sec-Fetch-Site: cross-site", *WINDOW], 200),
            (["Sec-Fetch-Site: same-site", *WINDOW], 200),
            (["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate"], 404),
            (["Sec-Fetch-Site: same-site", *FRAME], 404),
            (["Sec-Fetch-Site: same-origin", *FRAME], 200),
            (["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"], 200),
            (["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"], 200),
            (["Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"], 404),
            # Browsers that do not say: a script, a picture; a window; pages of its own, and of another.
            ([], 404),
            (["Accept: image/avif,image/webp,*/*"], 404),
            (["Accept: text/html,*/*"], 200),
            (["Referer: http://{own}/a"], 200),
            (["Referer: http://{own}"], 200),
            (["Referer: http://{own}.evil.org/"], 404),
            (["Referer: http://3000-sandbox-evilevilevil.sandboxes.localhost/"], 404),
            (["Accept: text/html", "Connection: Upgrade", "Upgrade: websocket"], 404),
        ],
    )
    async def test_pages_of_others_do_not_come_in_by_the_cookie(
        self, gate: Gateway, fields: list[str], status: int
    ) -> None:
        """All dev URLs are one site to a browser, which sends the cookie for each of them."""
        port = await server(mirror)
        cookie = f"Cookie: __Host-runtools-dev={LINK}"
        fields = [field.replace("{own}", gate.host(port)) for field in fields]
        said = await gate.say(head(gate, port, cookie, *fields, key=""))
        found = int(said.split(b" ")[1])
        assert (404 if found == 303 else found) == status

    async def test_a_sandbox_sets_cookies_for_itself_alone(self, gate: Gateway) -> None:
        async def sets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
                b"Set-Cookie: a=1; Domain=sandboxes.localhost; Path=/\r\n"
                b"Set-Cookie: __Host-runtools-dev=stolen; Path=/\r\nClear-Site-Data: *\r\n\r\n"
            )

        port = await server(sets)
        said = await gate.say(head(gate, port))
        assert b"Set-Cookie: a=1; Path=/\r\n" in said
        assert b"stolen" not in said
        assert b"Clear-Site-Data" not in said


class TestWaking:
    """Of a sandbox whose org has limits on what runs."""

    @pytest.fixture
    def limited(self, gate: Gateway) -> Gateway:
        gate.admitting.limited = True
        return gate

    async def test_it_is_awake_and_counted_before_it_is_reached(self, limited: Gateway) -> None:
        port = await server(mirror)
        assert (await limited.say(head(limited, port))).startswith(b"HTTP/1.1 200 ")
        assert limited.admitting.woken == [BOX]
        assert limited.reach.wakes == [False]

    async def test_without_limits_it_is_not_asked_for(self, gate: Gateway) -> None:
        await gate.say(head(gate, await server(mirror)))
        assert (gate.admitting.woken, gate.reach.wakes) == ([], [True])

    async def test_one_that_may_not_be_woken_is_not_reached(self, limited: Gateway) -> None:
        limited.admitting.asleep_for_good = QuotaExceeded("the org may have 1 running sandboxes")
        said = await limited.say(head(limited, 3000))
        assert said.startswith(b"HTTP/1.1 409 ")
        assert b"runs as much as it may" in said
        assert b"the org may have 1" not in said
        assert limited.reach.opened == []

    async def test_what_is_said_after_a_silence_asks_first(
        self, limited: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rousing, "QUIET_SECONDS", 0)
        async with _repeating(limited) as sock:
            for message in ("a" * MB, "b", "c" * MB):
                await _asks(limited, sock, message)
            limited.admitting.asleep_for_good = QuotaExceeded("full")
            before = len(limited.admitting.woken)
            await (await sock.ping())  # wakes nothing
            assert len(limited.admitting.woken) == before
            await sock.send("d")
            async with asyncio.timeout(20):
                with pytest.raises(websockets.ConnectionClosed):
                    await sock.recv()

    async def test_limits_that_come_later_count_for_what_is_open(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rousing, "QUIET_SECONDS", 0)
        async with _repeating(gate) as sock:
            await sock.send("a")
            assert await sock.recv() == "a"
            assert gate.admitting.woken == []
            gate.admitting.limited = True
            [visit] = gate.house._visits
            assert isinstance(visit, Visit)
            exchange = visit._exchange
            assert exchange is not None
            await holds(lambda: not exchange.wakes)
            await _asks(gate, sock, "b")

    async def test_what_wakes_by_itself_is_not_used_again_within_limits(
        self, gate: Gateway
    ) -> None:
        port = await server(mirror)
        reader, writer = await gate.connect()
        for is_limited in (False, False, True, True):
            gate.admitting.limited = is_limited
            gate.house.admission._known.clear()
            writer.write(head(gate, port))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"\r\n\r\n")  # the head that it was sent
        assert gate.reach.wakes == [True, False]


@contextlib.asynccontextmanager
async def _repeating(gate: Gateway) -> AsyncIterator[websockets.ClientConnection]:
    """A WebSocket to a server that says all again."""

    async def repeat(sock: ServerConnection) -> None:
        async for message in sock:
            await sock.send(message)

    async with websockets.serve(repeat, "127.0.0.1", 0) as served:
        port = next(iter(served.sockets)).getsockname()[1]
        async with websockets.connect(
            f"ws://{gate.host(port)}/",
            host="127.0.0.1",
            additional_headers={"X-RunTools-Key": KEY},
        ) as sock:
            yield sock


async def _asks(gate: Gateway, sock: websockets.ClientConnection, message: str) -> None:
    """That a message gets through, and has the sandbox woken before."""
    before = len(gate.admitting.woken)
    await sock.send(message)
    assert await sock.recv() == message
    assert len(gate.admitting.woken) > before


class TestStaying:
    async def test_visitors_of_a_public_port_are_asked_about_as_one(self, gate: Gateway) -> None:
        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        port = await server(wait)
        gate.admitting.public.add((BOX, port))
        held = [await gate.connect() for _ in range(5)]
        for n, (_, writer) in enumerate(held):
            writer.write(head(gate, port, key=f"rt_live_{n}"))
        async with asyncio.timeout(20):
            while len(gate.reach.opened) < 5 or not gate.admitting.stood:
                await asyncio.sleep(0.01)
        assert {(one.key, one.cookies) for one in gate.admitting.stood} == {(None, ())}
        gate.admitting.public.clear()
        async with asyncio.timeout(20):
            for reader, writer in held:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()


class TestPages:
    async def test_where_nothing_listens_yet_it_says_so_and_looks_again(
        self, gate: Gateway
    ) -> None:
        port = await server(mirror)
        said = await gate.say(head(gate, 9, "Accept: text/html"))
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRefresh: 2\r\n" in said
        assert b"Nothing listens on port 9 yet" in said
        assert f'href="http://{gate.host(port)}"'.encode() in said
        assert b"<" not in (await gate.say(head(gate, 9))).partition(b"\r\n\r\n")[2]

    async def test_it_does_not_look_for_ever(self, gate: Gateway, monkeypatch: Any) -> None:
        monkeypatch.setattr(reloads, "MINUTES", 0)
        said = await gate.say(head(gate, 9, "Accept: text/html"))
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"Refresh:" not in said
        assert b"reload it to look again" in said
        assert b"\r\nRetry-After: 2\r\n" in await gate.say(head(gate, 9))

    async def test_what_else_listens_is_nothing_for_everybody(self, gate: Gateway) -> None:
        port = await server(mirror)
        gate.admitting.public.add((BOX, 9))
        said = await gate.say(head(gate, 9, "Accept: text/html"))
        assert b"Nothing listens on port 9 yet" in said
        assert str(port).encode() not in said
        assert b"other port" not in said

    @pytest.mark.parametrize(
        ("failure", "status"),
        [
            (SandboxStopped("it has stopped: <script>"), 410),
            (GuestUnreachable("silent"), 502),
            (Unavailable("the host is away"), 503),
            (WaitsForRoom("at place 3, 900 MB of 24000"), 503),
            (CapacityExhausted("900 MB of 24000"), 503),
            (DeadlineExceeded("it is still being paused"), 504),
            (ZeroDivisionError(), 500),
        ],
    )
    async def test_what_went_wrong_is_said(
        self, gate: Gateway, failure: Exception, status: int
    ) -> None:
        gate.reach.sandboxes[BOX] = failure  # type: ignore[assignment]
        said = await gate.say(head(gate, 3000, "Accept: text/html"))
        assert said.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"<script>" not in said
        assert b"900 MB" not in said  # what its host runs is nothing for whoever has the address
        again = Unavailable | WaitsForRoom | DeadlineExceeded
        assert (b"Refresh:" in said) == isinstance(failure, again)

    async def test_an_api_that_is_away_lets_nobody_in(self, gate: Gateway) -> None:
        gate.admitting.failure = Unavailable("the api is away")
        assert (await gate.say(head(gate, 3000))).startswith(b"HTTP/1.1 503 ")
        assert gate.reach.opened == []
