"""A gateway whose connections are played: a test is what says when one takes no more, or is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.core.ports.reach import Reach
from runtools.platform.gateway.web.house import House
from runtools.platform.gateway.web.visit import Visit
from runtools.testing.clock import ManualClock
from runtools.testing.gateway_world import BOX, KEY, FakeAdmitting

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire(asyncio.Transport):
    """A connection that takes nothing once it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.left = 0
        self.is_paused = False
        self.is_gone = False
        self.is_aborted = False
        self.has_halves = True
        self.sock: socket.socket | None = None
        self.source = "-"
        self.on_write: Callable[[bytes], None] = lambda _: None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = {"socket": self.sock, "peername": (self.source, 1)}
        return found.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast("Any", protocol)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It is a test that says when too much waits."""

    def get_write_buffer_size(self) -> int:
        return self.left

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)
        self.on_write(bytes(data))

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_gone

    def can_write_eof(self) -> bool:
        return self.has_halves

    def write_eof(self) -> None:
        """More is read all the same."""

    def close(self) -> None:
        self.is_gone = True

    def abort(self) -> None:
        self.is_gone = self.is_aborted = True


class Servers:
    """Connects to played servers."""

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.on_write: Callable[[Wire, bytes], None] = lambda _, data: None
        self.on_attach: Callable[[], None] = lambda: None

    async def attach(
        self, sandbox_id: str, port: int, protocol: asyncio.Protocol, *, wakes: bool = True
    ) -> asyncio.Transport:
        self.on_attach()
        wire = Wire()
        wire.on_write = lambda data: self.on_write(wire, data)
        wire.set_protocol(protocol)
        self.wires.append(wire)
        protocol.connection_made(wire)
        return wire


class World:
    """A gateway of played connections."""

    def __init__(self) -> None:
        self.urls = DevUrls.of("http://sandboxes.localhost:1")
        self.servers = Servers()
        reach = cast("Reach", self.servers)
        self.admitting, self.clock = FakeAdmitting(), ManualClock()
        self.house = House(self.urls, self.admitting, reach, self.clock)

    def visit(self, source: str = "192.0.2.9") -> tuple[Visit, Wire]:
        made, wire = Visit(self.house), Wire()
        wire.source = source
        wire.set_protocol(made)
        made.connection_made(wire)
        return made, wire

    async def ask(
        self, visit: Visit, first: str, more: str = "", body: bytes = b"", *, version: str = "1.1"
    ) -> Wire:
        """The connection on which a request has gone on."""
        await self.request(visit, first, more, body, version=version)
        assert visit._upstream is not None
        return cast("Wire", visit._upstream.transport)

    async def request(
        self,
        visit: Visit,
        first: str,
        more: str = "",
        body: bytes = b"",
        *,
        key: bool = True,
        version: str = "1.1",
    ) -> None:
        """Ask, and see it judged."""
        host = f"Host: 3000-{BOX}.sandboxes.localhost:1\r\n"
        if key:
            host += f"X-RunTools-Key: {KEY}\r\n"
        visit.data_received(f"{first} HTTP/{version}\r\n{host}{more}\r\n".encode() + body)
        if visit._task is not None:
            await visit._task
