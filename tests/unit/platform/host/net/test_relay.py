"""What a relay carries goes on under another policy, or is cut before the change is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from runtools.platform.core.egress import Policy, policy
from runtools.platform.host.net import relay
from runtools.platform.host.net.relay import Relay

GOOD, EVIL = IPv4Address("127.0.0.2"), IPv4Address("127.0.0.3")
BOTH = policy(True, ["good.example.org", "second.example.org"], [])
ONE = policy(True, ["good.example.org"], [])
REQUEST = b"GET / HTTP/1.1\r\nHost: good.example.org\r\n\r\n"


@dataclass
class Stage:
    """A relay under `BOTH`, what comes to the servers behind it, and what it says of refusals."""

    relay: Relay
    listener: socket.socket
    port: int
    control: socket.socket
    reached: list[str]
    going: dict[int, IPv4Address]
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

    async def connect(self, to: IPv4Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As a guest does that goes to an address, and is brought here."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        self.going[sock.getsockname()[1]] = to
        await asyncio.get_running_loop().sock_connect(sock, self.listener.getsockname())
        return await asyncio.open_connection(sock=sock)

    def refusals(self) -> list[list[object]]:
        """What was refused so far."""
        lines = self.control.recv(65536).splitlines()
        return [json.loads(line)["refused"] for line in lines]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    reached: list[str] = []
    going: dict[int, IPv4Address] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(writer.get_extra_info("sockname")[0])
        await staged.serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(
        relay, "_destination", lambda client: (going[client.getpeername()[1]], port)
    )
    ours, theirs = socket.socketpair()
    _, control = await asyncio.open_connection(sock=theirs)
    with ours, socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        listener.setblocking(False)
        made = Relay(listener, control)
        await made.judge(BOTH, None)
        staged = Stage(made, listener, port, ours, reached, going, echo)
        yield staged
        await made.judge(policy(False, [], []), [])
    control.close()
    server.close()
    await asyncio.sleep(0)


async def is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionResetError:
        return True


async def test_one_whose_address_no_admitted_name_led_to_is_cut(stage: Stage) -> None:
    """Whatever name it says: one that was carried, and one that had yet to say anything."""
    serving = asyncio.create_task(stage.relay.serve())
    carried, out = await stage.connect(EVIL)
    out.write(REQUEST)
    await carried.readuntil(b"\r\n\r\n")
    silent, say = await stage.connect(EVIL)
    kept, ask = await stage.connect(GOOD)
    ask.write(REQUEST)
    await kept.readuntil(b"\r\n\r\n")
    quiet, whisper = await stage.connect(GOOD)
    async with asyncio.timeout(60):
        while len(stage.relay._flows) < 4:
            await asyncio.sleep(0)
        await stage.relay.judge(ONE, [GOOD])
        assert len(stage.relay._flows) == 2, "they are gone when the change is answered"
        for reader, writer in ((carried, out), (silent, say)):
            writer.write(REQUEST)
            assert await is_cut(reader)
        ask.write(b"more")
        assert await kept.read(4) == b"more"
        whisper.write(REQUEST)
        await quiet.readuntil(b"\r\n\r\n")
    assert stage.reached.count(str(EVIL)) == 1, "nothing went there after the change"
    assert stage.refusals() == [
        ["not_allowed", "good.example.org", str(EVIL), stage.port],
        ["not_allowed", None, str(EVIL), stage.port],
    ]
    serving.cancel()
    for writer in (out, say, ask, whisper):
        writer.close()


async def test_one_that_waits_to_be_taken_in_is_judged_too(stage: Stage) -> None:
    """What it says has come already, and nobody has looked at it yet."""
    evil, out = await stage.connect(EVIL)
    good, ask = await stage.connect(GOOD)
    for writer in (out, ask):
        writer.write(REQUEST)
    async with asyncio.timeout(60):
        await stage.relay.judge(ONE, [GOOD])
        assert await is_cut(evil)
        await good.readuntil(b"\r\n\r\n")
    assert stage.reached == [str(GOOD)]
    for writer in (out, ask):
        writer.close()


async def test_an_end_is_an_end_and_a_cut_is_a_reset(stage: Stage) -> None:
    """What was cut must not look whole."""
    async with asyncio.timeout(60):
        reader, out = await stage.connect(GOOD)
        out.write(REQUEST)
        out.write_eof()
        await stage.relay.judge(BOTH, None)
        assert (await reader.read()).startswith(b"GET / ")
        out.close()
        reader, out = await stage.connect(GOOD)
        out.write(REQUEST)
        await stage.relay.judge(BOTH, None)
        await reader.readuntil(b"\r\n\r\n")
        for task in stage.relay._flows.values():
            task.cancel()  # as the end of the process does
        with pytest.raises(ConnectionResetError):
            await reader.read()
        out.close()


@pytest.mark.parametrize(
    ("rule", "goes_on"),
    [
        (policy(True, ["127.0.0.3"], []), True),
        (policy(True, ["127.0.0.2"], []), False),
        (policy(True, ["more.org", "127.0.0.3"], []), True),
        (policy(True, ["*"], ["127.0.0.3"]), False),
        (policy(True, ["*"], ["good.example.org"]), False),
        (policy(False, [], []), False),
    ],
)
async def test_where_no_name_led_the_address_alone_decides(
    stage: Stage, rule: Policy, goes_on: bool
) -> None:
    reader, out = await stage.connect(EVIL)
    out.write(REQUEST)
    async with asyncio.timeout(60):
        await stage.relay.judge(BOTH, None)
        await reader.readuntil(b"\r\n\r\n")
        await stage.relay.judge(rule, [])
        if goes_on:
            out.write(b"more")
            assert await reader.read(4) == b"more"
        else:
            assert await is_cut(reader)
            reason = "not_allowed" if rule.internet else "internet_off"
            assert stage.refusals()[0][0] == reason
    out.close()


def hello(name: str) -> bytes:
    """What OpenSSL sends first."""
    context, outgoing = ssl.create_default_context(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def answer(random: bytes) -> bytes:
    """What a server says first; under a certain number it asks for a second hello."""
    message = b"\2\0\0\x28\3\3" + random + b"\0\x13\1\0\0\0"
    return b"\x16\3\3" + struct.pack(">H", len(message)) + message


AGAIN = answer(bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"))
COMPATIBLE = b"\x14\3\3\0\1\1"
EARLY = b"\x17\3\3\0\2xy"


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    """A folder with a certificate for an admitted name, and its key."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-subj", "/CN=good.example.org", "-addext"]
    words += ["subjectAltName=DNS:good.example.org", "-keyout", "key", "-out", "certificate"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


class TestSecondHellos:
    async def test_one_that_a_server_asks_for_passes(self, stage: Stage, certified: Path) -> None:
        """OpenSSL on both sides: the client offers a key that the server does not take."""
        mine, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        mine.load_verify_locations(certified / "certificate")
        theirs.load_cert_chain(certified / "certificate", certified / "key")
        theirs.set_ecdh_curve("secp384r1")
        said = b""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal said
            await writer.start_tls(theirs)
            said = await reader.readexactly(4)
            writer.write(said * 100_000)

        stage.serve = serve
        serving = asyncio.create_task(stage.relay.serve())
        async with asyncio.timeout(60):
            reader, writer = await stage.connect(GOOD)
            await writer.start_tls(mine, server_hostname="good.example.org")
            writer.write(b"said")
            assert await reader.readexactly(400_000) == b"said" * 100_000
        serving.cancel()
        writer.close()

    @pytest.mark.parametrize("name", ["second.example.org", "evil.net"])
    @pytest.mark.parametrize("early", [True, False])
    async def test_one_for_another_name_reaches_nobody(
        self, stage: Stage, name: str, early: bool
    ) -> None:
        """Also where that is admitted: a server may not look at it again. Whenever it was sent."""
        first, second = hello("good.example.org"), COMPATIBLE + EARLY + hello(name)
        came = b""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came
            came = await reader.readexactly(len(first + (COMPATIBLE + EARLY if early else b"")))
            writer.write(AGAIN)
            with contextlib.suppress(ConnectionResetError):
                while piece := await reader.read(4096):
                    came += piece

        stage.serve = serve
        reader, writer = await stage.connect(GOOD)
        writer.write(first + second if early else first)
        async with asyncio.timeout(60):
            await stage.relay.judge(BOTH, None)
            if not early:
                assert await reader.readexactly(len(AGAIN)) == AGAIN
                writer.write(second)
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            while stage.relay._flows:
                await asyncio.sleep(0)
        assert came == first + COMPATIBLE + EARLY
        assert stage.refusals() == [["unreadable", "good.example.org", str(GOOD), stage.port]]
        writer.close()

    async def test_where_none_was_asked_for_all_goes_on(self, stage: Stage) -> None:
        """As it came: what is then encrypted may look like one."""
        first, more = hello("good.example.org"), COMPATIBLE + hello("evil.net") + b"not TLS"

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(len(first))
            writer.write(answer(bytes(32)))
            writer.write(await reader.readexactly(len(more)))

        stage.serve = serve
        reader, writer = await stage.connect(GOOD)
        writer.write(first)
        async with asyncio.timeout(60):
            await stage.relay.judge(BOTH, None)
            assert await reader.readexactly(len(AGAIN)) == answer(bytes(32))
            writer.write(more)
            assert await reader.readexactly(len(more)) == more
        writer.close()
