"""Dev URLs against hostile clients and hostile guests: each ends in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from runtools.platform.gateway.web import house, pace, visit
from runtools.testing.gateway_world import BOX, KEY, Gateway, gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")
MB = 1 << 20


@pytest_asyncio.fixture(loop_scope="module")
async def gate() -> AsyncIterator[Gateway]:
    async with gateway() as made:
        yield made


def held(one: visit.Visit) -> int:
    """Bytes that are kept for a visit."""
    flows = [one._transport.get_write_buffer_size(), len(one._held)]
    if one._upstream is not None:
        flows += [one._upstream.transport.get_write_buffer_size(), len(one._upstream._held)]
    return sum(flows)


class Guest:
    """A server that keeps what it was sent and answers what a test says."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") -> None:
        self.came: list[bytes] = []
        self.answer = answer
        self.closed = 0
        self.may_end = asyncio.Event()  # when its caller has ended its direction
        self.may_end.set()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while piece := await reader.read(1 << 16):
                self.came.append(piece)
                if b"\r\n\r\n" in piece:
                    writer.write(self.answer)
            await self.may_end.wait()
        except ConnectionError:
            pass
        finally:
            self.closed += 1
            writer.close()

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])


@pytest_asyncio.fixture(loop_scope="module")
async def guest(gate: Gateway) -> AsyncIterator[tuple[Guest, str]]:
    made = Guest()
    port = await made.start()
    yield made, f"Host: {gate.host(port)}\r\nX-RunTools-Key: {KEY}\r\n"
    made.server.close()


LENGTH, CHUNKS = "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"
POST, END = "POST / HTTP/1.1\r\n{host}", "\r\n0\r\n\r\n"
GET = "GET / HTTP/1.1\r\n{host}"
SMUGGLED = {
    "two hosts": GET + "Host: 3000-sandbox-bbbbbbbbbbbb.sandboxes.localhost\r\n\r\n",
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "length and chunks": POST + LENGTH + CHUNKS + END,
    "chunks and length": POST + CHUNKS + LENGTH + END,
    "two lengths": POST + LENGTH + "Content-Length: 5\r\n\r\nabcde",
    "lengths in a list": POST + "Content-Length: 4, 5\r\n\r\nabcde",
    "a signed length": POST + "Content-Length: +4\r\n\r\nabcd",
    "another coding": POST + "Transfer-Encoding: xchunked\r\n" + END,
    "two codings": POST + "Transfer-Encoding: gzip, chunked\r\n" + END,
    "a coding twice": POST + CHUNKS + "Transfer-Encoding: x\r\n" + END,
    "a hidden coding": POST + "Transfer-Encoding : chunked\r\n" + END,
    "bare line feeds": "GET / HTTP/1.1\n{host}\n\n\r\n\r\n",
    "one bare line feed": GET + "X: a\nY: b\r\n\r\n",
    "a bare return": GET + "X: a\rY: b\r\n\r\n",
    "a zero byte": GET + "X: a\0b\r\n\r\n",
    "a folded field": GET + "X: a\r\n b\r\n\r\n",
    "a space before the colon": GET + "X : a\r\n\r\n",
    "an absolute address": "GET http://3000-sandbox-bbbbbbbbbbbb.x/ HTTP/1.1\r\n{host}\r\n",
    "no path": "GET a HTTP/1.1\r\n{host}\r\n",
    "a tunnel": "CONNECT a:80 HTTP/1.1\r\n{host}\r\n",
    "chunks in HTTP/1.0": "POST / HTTP/1.0\r\n{host}" + CHUNKS + END,
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": "GET /\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "garbage": "\xff\xfe\x00\r\n\r\n",
}


class TestRequests:
    @pytest.mark.parametrize("name", SMUGGLED)
    async def test_what_could_be_read_in_two_ways_goes_no_further(
        self, gate: Gateway, guest: tuple[Guest, str], name: str
    ) -> None:
        hostile, host = guest
        sent = SMUGGLED[name].format(host=host).encode("latin-1")
        said = await gate.say(sent + f"GET /smuggled HTTP/1.1\r\n{host}\r\n".encode())
        assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 405 ", b"HTTP/1.1 505 "))
        assert said.count(b"Content-Type: ") == 1
        assert hostile.came == []

    @pytest.mark.parametrize(
        "body",
        [
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            b"\r\n\r\n",
            b"0\r\nno trailer\r\n\r\n",
            b"5;" + b"x" * 10_000 + b"\r\nhello\r\n0\r\n\r\n",
            b"0\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        ],
    )
    async def test_chunks_that_are_none_end_the_request(
        self, gate: Gateway, guest: tuple[Guest, str], body: bytes
    ) -> None:
        hostile, host = guest
        hostile.answer = b""
        head = f"POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n".encode()
        said = await gate.say(head + body + f"GET /smuggled HTTP/1.1\r\n{host}\r\n".encode())
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b"/smuggled" not in b"".join(hostile.came)

    async def test_a_head_of_100_mb_is_cut_off(
        self, gate: Gateway, guest: tuple[Guest, str]
    ) -> None:
        hostile, host = guest
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reader, writer = await gate.connect()
        writer.write(f"GET / HTTP/1.1\r\n{host}X: ".encode())
        sent = 0
        try:
            while sent < 100 * MB:
                writer.write(b"x" * MB)
                await writer.drain()
                sent += MB
        except ConnectionError:
            pass
        with_answer = b""
        with contextlib.suppress(ConnectionError):
            with_answer = await reader.read()
        writer.close()
        assert not with_answer or with_answer.startswith(b"HTTP/1.1 431 ")
        assert hostile.came == []
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024

    async def test_too_many_fields_are_refused(
        self, gate: Gateway, guest: tuple[Guest, str]
    ) -> None:
        _, host = guest
        fields = "X: y\r\n" * 300
        said = await gate.say(f"GET / HTTP/1.1\r\n{host}{fields}\r\n".encode())
        assert said.startswith(b"HTTP/1.1 431 ")

    async def test_a_slow_head_is_given_up_and_others_are_served(
        self, gate: Gateway, guest: tuple[Guest, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(visit, "HEAD_SECONDS", 0.5)
        monkeypatch.setattr(house, "LOOK_SECONDS", 0.1)
        _, host = guest
        slow = [await gate.connect() for _ in range(50)]

        async def drip(writer: asyncio.StreamWriter) -> None:
            try:
                for byte in b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.05)
            except ConnectionError:
                pass

        drips = [asyncio.create_task(drip(writer)) for _, writer in slow]
        assert (await gate.say(f"GET / HTTP/1.1\r\n{host}\r\n".encode())).endswith(b"ok")
        async with asyncio.timeout(20):
            for reader, writer in slow:
                assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
                writer.close()
        for task in drips:
            task.cancel()

    async def test_a_connection_that_says_nothing_is_closed(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(visit, "HEAD_SECONDS", 0.3)
        monkeypatch.setattr(house, "LOOK_SECONDS", 0.1)
        reader, writer = await gate.connect()
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()

    async def test_nor_does_one_stay_that_has_been_answered(
        self, gate: Gateway, guest: tuple[Guest, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(visit, "IDLE_SECONDS", 0.3)
        monkeypatch.setattr(house, "LOOK_SECONDS", 0.1)
        _, host = guest
        reader, writer = await gate.connect()
        writer.write(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        async with asyncio.timeout(20):
            assert (await reader.read()).endswith(b"ok")
        writer.close()

    async def test_the_next_head_has_its_time_from_the_answer_before_on(
        self, gate: Gateway, guest: tuple[Guest, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hostile, host = guest
        hostile.answer = b""
        reader, writer = await gate.connect()
        ask = f"GET / HTTP/1.1\r\n{host}\r\n".encode()
        writer.write(ask + ask[:20])
        async with asyncio.timeout(20):
            while not hostile.came:
                await asyncio.sleep(0.01)
            [one] = gate.house._visits
            assert isinstance(one, visit.Visit)
            while len(one._held) < 20:
                await asyncio.sleep(0.01)
            one._since -= visit.HEAD_SECONDS  # so long did that answer take
            [back] = hostile.writers
            back.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
            gate.house.look()
            writer.write(ask[20:])
            while len(hostile.came) < 2:
                await asyncio.sleep(0.01)
        writer.close()

    async def test_a_body_in_drops_is_given_up(
        self, gate: Gateway, guest: tuple[Guest, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pace, "BODY_SECONDS", 0.3)
        monkeypatch.setattr(house, "LOOK_SECONDS", 0.1)
        hostile, host = guest
        hostile.answer = b""
        reader, writer = await gate.connect()
        writer.write(f"POST / HTTP/1.1\r\n{host}Content-Length: 1000000\r\n\r\n".encode())

        async def drip() -> None:
            while not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(20):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
            while not hostile.closed:
                await asyncio.sleep(0.01)
        dripping.cancel()
        writer.close()

    @pytest.mark.parametrize("upgrade", [False, True])
    async def test_a_reader_that_takes_nothing_is_ended(
        self,
        gate: Gateway,
        guest: tuple[Guest, str],
        monkeypatch: pytest.MonkeyPatch,
        upgrade: bool,
    ) -> None:
        monkeypatch.setattr(pace, "STALL_SECONDS", 0.3)
        monkeypatch.setattr(house, "LOOK_SECONDS", 0.1)
        hostile, host = guest
        hostile.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 64 * MB
        if upgrade:
            host += "Connection: upgrade\r\nUpgrade: x\r\n"
            switching = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
            hostile.answer = switching + b"x" * 64 * MB
        reader, writer = await gate.connect()
        writer.write(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            while not hostile.closed:
                await asyncio.sleep(0.01)
        writer.transport.abort()

    async def test_what_a_visit_holds_is_bounded(
        self, gate: Gateway, guest: tuple[Guest, str]
    ) -> None:
        """Of a visitor that sends requests and takes no answers, to a server that takes none either."""
        hostile, host = guest
        hostile.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 64 * MB
        ask = f"POST / HTTP/1.1\r\n{host}Content-Length: 99999999\r\n\r\n".encode()
        _, writer = await gate.connect()
        writer.write(ask + b"x" * 64 * MB)
        async with asyncio.timeout(20):
            while not gate.house._visits:
                await asyncio.sleep(0.01)
            [one] = gate.house._visits
            assert isinstance(one, visit.Visit)
            most = 0
            while not one._is_slow:
                most = max(most, held(one))
                await asyncio.sleep(0)
        assert 0 < max(most, held(one)) <= MB
        writer.transport.abort()

    async def test_one_source_does_not_take_all_room(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(house, "MOST_OF_A_SOURCE", 3)
        held = [await gate.connect() for _ in range(3)]
        for _, writer in held:
            writer.write(b"GET")
        reader, writer = await gate.connect()
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        for _, one in [*held, (reader, writer)]:
            one.close()

    async def test_there_are_no_more_than_files_for_them(
        self, gate: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(visit.Visit, "is_idle", False)  # a request is under way
        gate.house._most = 2
        held = [await gate.connect() for _ in range(2)]
        async with asyncio.timeout(20):
            while len(gate.house._visits) < 2:
                await asyncio.sleep(0.01)
            reader, writer = await gate.connect()
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            for _, one in [*held, (reader, writer)]:
                one.transport.abort()
            while gate.house._visits:
                await asyncio.sleep(0.01)
        reader, writer = await gate.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()


class TestGuests:
    @pytest.mark.parametrize(
        "answer",
        [
            b"\0" * 100 + b"\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            b"HTTP/1.1 101 Yes\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        ],
    )
    async def test_an_answer_that_is_none_becomes_a_page(
        self, gate: Gateway, guest: tuple[Guest, str], answer: bytes
    ) -> None:
        hostile, host = guest
        hostile.answer = answer
        said = await gate.say(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        assert said.startswith(b"HTTP/1.1 502 ")

    async def test_more_than_it_said_is_nobodys_answer(
        self, gate: Gateway, guest: tuple[Guest, str]
    ) -> None:
        hostile, host = guest
        hostile.answer += b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        reader, writer = await gate.connect()
        for _ in range(3):
            writer.write(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
            said = await reader.readuntil(b"\r\n\r\nok")
            assert b"evil" not in said
        writer.close()

    async def test_one_that_never_answers_is_given_up(
        self, gate: Gateway, guest: tuple[Guest, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(visit, "ANSWER_SECONDS", 0.5)
        monkeypatch.setattr(house, "LOOK_SECONDS", 0.1)
        hostile, host = guest
        hostile.answer = b""
        said = await gate.say(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        assert said.startswith(b"HTTP/1.1 504 ")

    async def test_one_that_says_nothing_but_wait_has_no_end_of_memory(
        self, gate: Gateway, guest: tuple[Guest, str]
    ) -> None:
        hostile, host = guest
        final = hostile.answer
        hostile.answer = b"HTTP/1.1 100 Continue\r\n\r\n" * 101 + final
        said = await gate.say(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        assert said.count(b"HTTP/1.1 100 ") == 100
        assert said.count(b"HTTP/1.1 502 ") == 1
        hostile.answer = b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + final
        said = await gate.say(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        assert said.endswith(b"ok")

    @pytest.mark.parametrize("upgrades", [False, True])
    async def test_a_caller_that_left_a_silent_answer_is_noticed(
        self,
        gate: Gateway,
        guest: tuple[Guest, str],
        monkeypatch: pytest.MonkeyPatch,
        upgrades: bool,
    ) -> None:
        monkeypatch.setattr(house, "LOOK_SECONDS", 0.05)
        hostile, host = guest
        hostile.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        if upgrades:
            host += "Connection: upgrade\r\nUpgrade: x\r\n"
            hostile.answer = b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        hostile.may_end.clear()
        reader, writer = await gate.connect()
        writer.write(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        [one] = gate.house._visits
        assert isinstance(one, visit.Visit)
        async with asyncio.timeout(20):
            while not (one._ended or (one._talk and one._talk.inward.ended)):
                await asyncio.sleep(0.01)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            while gate.house._visits:
                await asyncio.sleep(0.01)
        hostile.may_end.set()

    async def test_no_page_of_ours_stands_in_an_answer(
        self, gate: Gateway, guest: tuple[Guest, str]
    ) -> None:
        hostile, host = guest
        hostile.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nbegins"
        reader, writer = await gate.connect()
        writer.write(f"POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n".encode())
        await reader.readuntil(b"begins")
        writer.write(b"no chunk\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()

    async def test_a_caller_that_goes_away_ends_it_inside(
        self, gate: Gateway, guest: tuple[Guest, str]
    ) -> None:
        hostile, host = guest
        hostile.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 2 * MB
        reader, writer = await gate.connect()
        writer.write(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        async with asyncio.timeout(20):
            while not hostile.closed:
                await asyncio.sleep(0.01)

    async def test_hostile_ones_do_not_hold_up_others(
        self, gate: Gateway, guest: tuple[Guest, str]
    ) -> None:
        _, host = guest
        silent = Guest(b"")
        port = await silent.start()
        waiting = [await gate.connect() for _ in range(100)]
        ask = f"GET / HTTP/1.1\r\nHost: {gate.host(port, BOX)}\r\nX-RunTools-Key: {KEY}\r\n\r\n"
        for _, writer in waiting:
            writer.write(ask.encode())
        async with asyncio.timeout(60):
            assert (await gate.say(f"GET / HTTP/1.1\r\n{host}\r\n".encode())).endswith(b"ok")
        for _, writer in waiting:
            writer.transport.abort()
        silent.server.close()
