"""A whole api on a real socket, over a fake host: what the flow tests of the api stand on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy import Connection

from runtools.platform.api.app import create_app
from runtools.platform.api.hosts import store as hosts
from runtools.platform.api.hosts.registry import Hosts
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.keys.service import Keys
from runtools.platform.api.members import store as members
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.platform import Platform
from runtools.platform.api.projects import store as projects
from runtools.platform.api.projects.store import Project
from runtools.platform.api.schema import upgrade
from runtools.platform.api.users import store as users
from runtools.platform.api.users.store import User
from runtools.platform.boot import parts
from runtools.platform.boot.keyring import open_vault
from runtools.platform.boot.mcp_door import McpDoor
from runtools.platform.boot.people import Person
from runtools.platform.core.access import PARTS, Part, Role
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import Host
from runtools.platform.kit import connection, websocket
from runtools.platform.kit.clock import Clock, SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.platform.kit.tracing import OFF, Tracing
from runtools.testing.conformity import Conformity, Rules, Watched
from runtools.testing.fake_host import FakeHost
from runtools.testing.made_once import bare_app
from runtools.testing.revocations import Revocations

HOST_ID = "hst_one"
# Within which anything must have come about, on the busiest of machines.
PATIENCE_SECONDS = 60.0
# A condition may be a request: looked at ever more seldom, it leaves the processors to the other tests.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
# How long an api that ends waits for who is still connected.
_GRACE_SECONDS = 1.0


@cache
def rules() -> Rules:
    """What every api's answers are held against."""
    return Rules(bare_app().openapi())


@dataclass(frozen=True)
class Signed:
    """A person who is signed in, with a client of theirs."""

    http: httpx.AsyncClient
    user_id: str
    session_id: str
    secret: str


@dataclass
class World:
    """A running api and its surroundings.

    Attributes:
        http: a client with the first key.
        url: where the api listens.
        key: the first key.
        org: its org.
    """

    http: httpx.AsyncClient
    url: str
    key: str
    org: str
    platform: Platform
    host: FakeHost

    def token(self, part: Part) -> str:
        """What a part of the platform shows the api."""
        return parts.token(self.platform.settings, part)

    async def create(self, **body: Any) -> dict[str, Any]:
        """A sandbox, as the api answers."""
        answer = await self.http.post("/v1/sandboxes", json=body)
        assert answer.status_code == 201, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def get(self, ref: str, by: httpx.AsyncClient | None = None) -> dict[str, Any]:
        """How a sandbox is shown, to whoever asks."""
        answer = await (by or self.http).get(f"/v1/sandboxes/{ref}")
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def why(self, ref: str) -> list[dict[str, Any]]:
        """A sandbox's ledger."""
        answer = await self.http.get(f"/v1/sandboxes/{ref}/why?limit=100")
        assert answer.status_code == 200, answer.text
        data: list[dict[str, Any]] = answer.json()["data"]
        return data

    async def becomes(
        self, ref: str, by: httpx.AsyncClient | None = None, **wanted: Any
    ) -> dict[str, Any]:
        """The sandbox, once it is shown so."""
        seen: dict[str, Any] = {}
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
        while time.monotonic() < deadline:
            seen = await self.get(ref, by)
            if all(seen[name] == value for name, value in wanted.items()):
                return seen
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE)
        raise AssertionError(f"{ref} never became {wanted}; it is {seen}")

    async def heard(self) -> None:
        """Wait until all that the host has reported is written down."""

        async def told() -> bool:
            place = await self.platform.db.read(hosts.position, HOST_ID)
            return self.host.seq == 0 or place == (self.host.epoch, self.host.seq)

        await holds(told)

    async def build(
        self, slug: str = "base-debian", by: httpx.AsyncClient | None = None, **body: Any
    ) -> dict[str, Any]:
        """A template version, ready."""
        http = by or self.http
        answer = await http.post(f"/v1/templates/{slug}/builds", json=body)
        assert answer.status_code == 201, answer.text
        await holds(lambda: _built(http, slug))
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def person(
        self,
        role: Role | None = "member",
        *,
        email: str = "ann@example.org",
        operator: bool = False,
        password: str | None = None,
        org: str | None = None,
    ) -> Signed:
        """Somebody with an account, signed in, with that role in the org (None: in no org)."""
        db, clock, user_id = self.platform.db, self.platform.clock, new_id("usr")
        kept = None if password is None else await self.platform.passwords.hash(password)

        def add(conn: Connection) -> None:
            now = clock.now()
            users.add(conn, User(user_id, email, email.partition("@")[0], kept, operator, now))
            if role is not None:
                members.add(conn, org or self.org, user_id, role, now)

        await db.write(add)
        session, secret = await self.platform.sessions.open(user_id, "cli", "test", "127.0.0.1")
        return Signed(client(self.url, secret), user_id, session.id, secret)

    async def stranger(self) -> httpx.AsyncClient:
        """A client of another org."""
        db, clock, org_id = self.platform.db, self.platform.clock, new_id("org")

        def add(conn: Connection) -> None:
            now = clock.now()
            orgs.add(conn, org_id, "other", now)
            fresh = Project(new_id("prj"), org_id, "default", is_default=True, created_at=now)
            projects.add(conn, fresh)

        await db.write(add)
        _, secret = await Keys(db, clock).make(org_id, "theirs", new_id("opn"))
        return client(self.url, secret or "")


async def _built(http: httpx.AsyncClient, slug: str) -> bool:
    shown = (await http.get(f"/v1/templates/{slug}")).json()["data"]
    return bool(shown["state"] == "ready")


def client(url: str, key: str) -> httpx.AsyncClient:
    """A client with a key."""
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=90,
        trust_env=False,
        verify=False,
    )


async def holds(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the condition (which may be a coroutine function) holds."""
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, "it never held"
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, _LONGEST_PAUSE)


@asynccontextmanager
async def world(
    db: Database,
    folder: Path,
    *,
    clock: Clock | None = None,
    host: FakeHost | None = None,
    outbound_allow: str = "",
    provider_keys: Mapping[str, str] | None = None,
    checked: bool = True,
    **said: Any,
) -> AsyncIterator[World]:
    """A running api with a template that is ready; ``said`` are settings."""
    clock = clock or SystemClock()
    await upgrade(db)
    org, key = await ensure_first(db, clock)
    assert key is not None
    host = host or FakeHost(folder / "host")
    cheap: dict[str, Any] = {"password_memory_kb": 8, "password_rounds": 1}
    settings = Settings(home=folder, outbound_allow=outbound_allow, **cheap | said)
    async with (
        serving(db, {HOST_ID: host}, clock, settings, provider_keys, checked=checked) as (
            url,
            platform,
        ),
        client(url, key) as http,
    ):
        made = World(http, url, key, org, platform, host)
        await made.build()
        try:
            yield made
        finally:
            for machine in host.machines.values():
                await machine.inside.processes.kill()


class _Server(uvicorn.Server):
    """Ends when it is told to, and not at the next look."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: they are the test's."""
        yield

    def end(self) -> None:
        """Let it end."""
        self.should_exit = True
        self._ending.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's own, without the tenth of a second that it waits in any case."""
        for server in self.servers:
            server.close()
        for connected in list(self.server_state.connections):
            connected.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.005)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    async def main_loop(self) -> None:
        """Once a second the date of answers is made anew."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1.0)


@asynccontextmanager
async def serving(
    db: Database,
    hosts: dict[str, Host],
    clock: Clock,
    settings: Settings,
    provider_keys: Mapping[str, str] | None = None,
    tracing: Tracing = OFF,
    *,
    checked: bool = True,
) -> AsyncIterator[tuple[str, Platform]]:
    """The api on a port of the loopback, until the block ends; the database is closed then.

    Args:
        checked: whether every answer is held against the document, and every transaction to counting what
            it revokes: not where what it costs is measured.
    """
    settings.api_home.mkdir(parents=True, exist_ok=True)
    settings.run_folder.mkdir(exist_ok=True)
    me = Person("me", os.geteuid(), os.getegid())
    parts.make(settings, dict.fromkeys(PARTS, me), me)
    vault = await open_vault(settings, db, clock)
    app = create_app(db, Hosts(hosts), clock, settings, vault, provider_keys or {}, tracing)
    conformity = Conformity(rules())
    revocations = Revocations(db) if checked else None
    # With the protocol named, or asyncio would not switch Nagle's algorithm off: 40 ms an answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        config = uvicorn.Config(
            McpDoor(Watched(app, conformity) if checked else app, url),
            http=connection.Protocol,
            ws=websocket.Protocol,
            ws_max_size=websocket.MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            lifespan="on",
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await holds(lambda: server.started or task.done())
            yield url, app.state.platform
        finally:
            server.end()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    # Whatever a test asked for: every answer must have been one of the document's.
    assert conformity.faults == [], "\n".join(sorted(set(conformity.faults)))
    assert revocations is None or revocations.faults == [], "\n".join(revocations.faults)
