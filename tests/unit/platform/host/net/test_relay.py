"""What a relay carries goes on under another policy, or is cut before the change is answered."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address

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


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    reached: list[str] = []
    going: dict[int, IPv4Address] = {}

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(writer.get_extra_info("sockname")[0])
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "0.0.0.0", 0)
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
        yield Stage(made, listener, port, ours, reached, going)
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
