"""The contract of the reach port. A rig gives a sandbox in which servers can be started."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from runtools.errors import InvalidRequest, NotFound, PortClosed
from runtools.guest import protocol
from runtools.platform.core.ports.reach import Reach, Stream
from runtools.platform.kit.splice import is_gone

MB = 1 << 20


@dataclass
class ReachRig:
    """What the suite stands on.

    Attributes:
        reach: whom it is about.
        sandbox: a sandbox's id.
        listen: starts a server of `port_server` in it, on an address; returns its port.
    """

    reach: Reach
    sandbox: str
    listen: Callable[[str, str], Awaitable[int]]

    async def open(self, kind: str, address: str = "127.0.0.1") -> Stream:
        """A stream to a fresh server."""
        return await self.reach.open(self.sandbox, await self.listen(kind, address))


class Listening(asyncio.Protocol):
    """Hears what comes by a stream, and how it ends."""

    def __init__(self) -> None:
        self.came = b""
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.came += data

    def eof_received(self) -> bool:
        self._say("broke off" if is_gone(self._transport) else "ended")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._say("broke off")

    def _say(self, how: str) -> None:
        if not self.end.done():
            self.end.set_result(how)


class ReachContract:
    """What every implementation does."""

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0"])
    async def test_it_reaches_whatever_address_is_listened_on(
        self, reached: ReachRig, address: str
    ) -> None:
        reader, writer = await reached.open("echo", address)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()

    async def test_a_server_may_speak_first(self, reached: ReachRig) -> None:
        reader, writer = await reached.open("first")
        assert await reader.readline() == b"welcome\n"
        writer.close()

    async def test_one_direction_ends_and_the_other_goes_on(self, reached: ReachRig) -> None:
        reader, writer = await reached.open("last")
        for n in range(100):
            writer.write(b"%d," % n)
        writer.write_eof()
        assert await reader.read() == b"".join(b"%d," % n for n in range(100))
        writer.close()

    @pytest.mark.parametrize(("kind", "how"), [("first", "ended"), ("breaks", "broke off")])
    async def test_what_broke_off_is_not_taken_for_ended(
        self, reached: ReachRig, kind: str, how: str
    ) -> None:
        listening = Listening()
        port = await reached.listen(kind, "127.0.0.1")
        transport = await reached.reach.attach(reached.sandbox, port, listening)
        async with asyncio.timeout(20):
            while listening.came != {"first": b"welcome\n", "breaks": b"welc"}[kind]:
                await asyncio.sleep(0.01)
            transport.write(b"x")
            assert await listening.end == how
        transport.abort()

    async def test_megabytes_arrive_whole_in_both_directions(self, reached: ReachRig) -> None:
        reader, writer = await reached.open("echo")
        sent = bytes(range(256)) * (32 * MB // 256)

        async def send() -> None:
            for at in range(0, len(sent), MB):
                writer.write(sent[at : at + MB])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        came = bytearray()
        while piece := await reader.read(MB):
            came += piece
        await sending
        assert bytes(came) == sent
        writer.close()

    async def test_who_does_not_read_is_not_sent_more(self, reached: ReachRig) -> None:
        _, writer = await reached.open("sink")
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < 256 * MB:
                writer.write(b"x" * MB)
                await writer.drain()
                sent += MB

        sending = asyncio.create_task(send())
        before = -1
        while sent != before:
            before = sent
            await asyncio.wait({sending}, timeout=1)
        sending.cancel()
        assert sent < 64 * MB
        writer.transport.abort()

    async def test_where_nothing_listens_is_said_with_what_does(self, reached: ReachRig) -> None:
        port = await reached.listen("echo", "127.0.0.1")
        with pytest.raises(PortClosed) as refused:
            await reached.reach.open(reached.sandbox, 9)
        assert port in refused.value.details["ports"]

    @pytest.mark.parametrize("port", [0, -1, 65536, protocol.PORT])
    async def test_no_such_port(self, reached: ReachRig, port: int) -> None:
        with pytest.raises(InvalidRequest):
            await reached.reach.open(reached.sandbox, port)

    async def test_no_such_sandbox(self, reached: ReachRig) -> None:
        with pytest.raises(NotFound):
            await reached.reach.open("sandbox-000000000000", 80)
