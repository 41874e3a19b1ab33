"""Dev URLs on a port of the loopback, over a fake api and sandboxes whose ports are this machine's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.core.ports.admitting import Admitting, Asked, Stay, Verdict
from runtools.platform.core.ports.reach import Reach
from runtools.platform.gateway.web.certificate import Certificate
from runtools.platform.gateway.web.house import House
from runtools.platform.gateway.web.server import listening
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.outbound import networks
from runtools.testing.fake_reach import FakeReach

BOX = "sandbox-aaaaaaaaaaaa"
OTHER = "sandbox-bbbbbbbbbbbb"
KEY = "rt_live_the-key"
LINK = "rt_link_the-link"
SIGN_IN = "http://localhost:7700/open"


@dataclass
class FakeAdmitting(Admitting):
    """Lets in by its lists.

    Attributes:
        public: sandboxes and ports that are open to everybody.
        secrets: what opens every sandbox there is.
        asked: what it was asked.
        stood: of whom it was asked whether they may stay.
        failure: what it fails with instead.
        limited: the org of the sandboxes has limits to keep.
        woken: which it was to have awake.
        asleep_for_good: what it says to that.
    """

    public: set[tuple[str, int]] = field(default_factory=set)
    secrets: set[str] = field(default_factory=lambda: {KEY, LINK})
    asked: list[Asked] = field(default_factory=list)
    stood: list[Asked] = field(default_factory=list)
    failure: Exception | None = None
    limited: bool = False
    woken: list[str] = field(default_factory=list)
    asleep_for_good: Exception | None = None

    async def admit(self, asked: Asked) -> Verdict:
        """See `Admitting`."""
        self.asked.append(asked)
        if self.failure is not None:
            raise self.failure
        public = (asked.sandbox_id, asked.port) in self.public
        wakes = not self.limited
        if asked.link in self.secrets:
            return Verdict(
                answer="enter", cookie=asked.link, seconds=60, public=public, wakes=wakes
            )
        if public or {asked.key, *asked.cookies} & self.secrets:
            return Verdict(answer="enter", public=public, wakes=wakes)
        return Verdict(answer="unknown")

    async def stays(self, asked: Sequence[Asked]) -> Sequence[Stay]:
        """See `Admitting`."""
        self.stood += asked
        if self.failure is not None:
            raise self.failure
        return [
            Stay(
                may=(one.sandbox_id, one.port) in self.public
                or bool({one.key, *one.cookies} & self.secrets),
                wakes=not self.limited,
            )
            for one in asked
        ]

    async def waken(self, sandbox_id: str) -> None:
        """See `Admitting`."""
        self.woken.append(sandbox_id)
        if self.asleep_for_good is not None:
            raise self.asleep_for_good


@dataclass
class Gateway:
    """One that serves."""

    house: House
    admitting: FakeAdmitting
    reach: FakeReach
    port: int
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def host(self, port: int, box: str = BOX) -> str:
        """What a browser calls a port of a sandbox."""
        return f"{port}-{box}.sandboxes.localhost:{self.port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def say(self, data: bytes) -> bytes:
        """All that it answers to these bytes."""
        reader, writer = await self.connect()
        writer.write(data)
        writer.write_eof()
        try:
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def gateway(
    reach: Reach | None = None,
    *,
    proxies: str = "",
    base: str = "",
    secured: Certificate | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway with two sandboxes, of which nothing is public."""
    admitting = FakeAdmitting()
    fake = FakeReach({BOX: None, OTHER: None})
    house = House(
        DevUrls("http", "sandboxes.localhost", 80),
        admitting,
        reach or fake,
        SystemClock(),
        sign_in=SIGN_IN,
        proxies=networks(proxies, "trusted_proxies"),
    )
    async with listening(house, "127.0.0.1", 0, secured) as port:
        house.urls = DevUrls.of(base or f"http://sandboxes.localhost:{port}")
        made = Gateway(house, admitting, fake, port)
        yield made
        for writer in made.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
