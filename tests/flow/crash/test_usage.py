"""What sandboxes used adds up to the millisecond, however often their host is killed under the api."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.platform import Platform
from runtools.platform.api.schema import upgrade
from runtools.platform.api.usage.service import look
from runtools.platform.api.usage.tables import stored
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database, micros
from runtools.testing import api_world, postgres
from runtools.testing.api_world import HOST_ID, client, holds
from runtools.testing.crash.house import House
from runtools.testing.crash.look import machines
from runtools.testing.made_once import sqlite_url

CLOCK = SystemClock()
FOREVER = "/usage?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&limit=100"
# Where the host dies, in which act; `one` and `two` go through all of it.
SCENES: tuple[tuple[str, str, str, Any], ...] = (
    ("create.reported", "POST", "/sandboxes", {"name": "two"}),
    ("pause.saved", "POST", "/sandboxes/one/pause", None),
    ("resume.started", "POST", "/sandboxes/one/resume", None),
    ("snapshot.still", "POST", "/sandboxes/one/snapshots", {"name": "kept"}),
    ("rollback.switched", "POST", "/sandboxes/one/rollback", {"to": "kept"}),
    ("pause.journaled", "POST", "/sandboxes/two/pause", None),
    ("resume.reported", "POST", "/sandboxes/two/resume", None),
    ("destroy.killed", "DELETE", "/sandboxes/one", None),
    ("destroy.removed", "DELETE", "/sandboxes/two", None),
)


@pytest.fixture(params=postgres.ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
        return
    with postgres.cluster() as server:
        yield server.url(server.create())


def _millis(at: datetime) -> int:
    return micros(at) // 1000


@dataclass
class Bounds:
    """Between what a sandbox's time must lie, by when its acts were asked for and answered."""

    least: int = 0
    most: int = 0
    since: tuple[int, int] | None = None

    def begins(self, asked: int, answered: int) -> None:
        """It came to run between these."""
        self.since = (asked, answered)

    def ends(self, asked: int, answered: int) -> None:
        """It ran no more."""
        assert self.since is not None
        earliest, latest = self.since
        self.least += max(0, asked - latest)
        self.most += answered - earliest
        self.since = None


@dataclass
class Scene:
    """A platform whose host is killed, and what is known of its sandboxes from outside."""

    house: House
    http: httpx.AsyncClient
    platform: Platform
    bounds: dict[str, Bounds] = field(default_factory=lambda: defaultdict(Bounds))

    async def ask(self, method: str, path: str, body: Any, key: str) -> httpx.Response:
        headers = {"Idempotency-Key": key}
        return await self.http.request(method, f"/v1{path}", json=body, headers=headers)

    async def get(self, path: str) -> Any:
        answer = await self.http.get(f"/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def act(self, method: str, path: str, body: Any, point: str = "") -> None:
        """One act; with a point the host dies in it, and it is asked for again."""
        key, asked = f"{method}-{path}-{body}".replace(" ", ""), _millis(CLOCK.now())
        if point:
            await self.house.kill()
            await self.house.start(point)
            await look(self.platform)
            first = asyncio.create_task(self.ask(method, path, body, key))
            assert await self.house.ended() == -signal.SIGKILL, f"{point} was not reached"
            await look(self.platform)  # nobody is there to be asked: it stays as it was
            await self.house.start()
            await first

        async def done() -> bool:
            return (await self.ask(method, path, body, key)).is_success

        await holds(done)
        answered = _millis(CLOCK.now())
        await look(self.platform)
        name = body["name"] if path == "/sandboxes" else path.split("/")[2]
        if path == "/sandboxes" or path.endswith("/resume"):
            self.bounds[name].begins(asked, answered)
        elif method == "DELETE" or path.endswith("/pause"):
            self.bounds[name].ends(asked, answered)

    def told(self) -> dict[str, int]:
        """For how long each sandbox ran, by what its host has written beside it."""
        found: dict[str, int] = {}
        for file in (self.house.home / "host" / "sandboxes").glob("*/ledger.jsonl"):
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            at = [_millis(datetime.fromisoformat(line["at"])) for line in lines]
            ran = sum(
                end - since
                for (since, end), line in zip(pairwise(at), lines, strict=False)
                if line["state"] == "running"
            )
            assert lines[-1]["state"] == "stopped"
            found[file.parent.name] = ran
        return found

    async def used(self, what: str) -> dict[str, int]:
        """What the api has counted of each sandbox."""
        return {row["sandboxId"]: row[what] for row in await self.get(FOREVER)}


@pytest.fixture
async def scene(house: House, url: str) -> AsyncIterator[Scene]:
    await house.start()
    db, settings = Database(url), Settings(home=house.home, disk_headroom_mb=1)
    await upgrade(db)
    _, key = await ensure_first(db, CLOCK)
    async with (
        RemoteHost(house.home / "run" / "host.sock") as remote,
        api_world.serving(db, {HOST_ID: remote}, CLOCK, settings) as (at, platform),
        client(at, key or "") as http,
    ):
        made = Scene(house, http, platform)
        assert (await made.ask("POST", "/templates/base-debian/builds", {}, "b")).is_success

        async def built() -> bool:
            return bool((await made.get("/templates/base-debian"))["state"] == "ready")

        await holds(built)
        yield made


async def test_it_adds_up_whenever_the_host_is_killed(scene: Scene) -> None:
    await scene.act("POST", "/sandboxes", {"name": "one"})
    await scene.act("POST", "/sandboxes", {"name": "three"})
    for point, method, path, body in SCENES:
        await scene.act(method, path, body, point)
    # A machine that ends while nobody is there to see it.
    await scene.house.kill()
    asked = _millis(CLOCK.now())
    three = next(row for row in await scene.get("/sandboxes") if row["name"] == "three")
    for pid, of in machines(scene.house.home, "local"):
        if of == three["id"]:
            os.kill(pid, signal.SIGKILL)
    await scene.house.start()

    async def ended() -> bool:
        return bool((await scene.get(f"/sandboxes/{three['id']}"))["state"] == "stopped")

    await holds(ended)
    scene.bounds["three"].ends(asked, _millis(CLOCK.now()))
    told = scene.told()

    async def same() -> bool:
        return await scene.used("runningMs") == told

    await holds(same)
    rows = await scene.get(FOREVER)
    assert {row["name"] for row in rows} == {"one", "two", "three"}
    for row in rows:
        bounds = scene.bounds[row["name"]]
        assert bounds.least <= row["runningMs"] <= bounds.most, (row, bounds)
        assert row["vcpuMs"] % row["runningMs"] == row["memoryMbMs"] % row["runningMs"] == 0
    await _lay(scene)


async def _lay(scene: Scene) -> None:
    """What lay on the disks follows on itself without a gap, and ends with what it was of."""
    found = defaultdict(list)
    for row in await scene.platform.db.read(lambda conn: conn.execute(select(stored)).all()):
        found[row.sandbox_id].append((row.since, row.until or datetime.max.replace(tzinfo=UTC)))
    assert found  # a local machine's disk has a MB only once it has been packed
    for stretches in found.values():
        stretches.sort()
        assert all(one[1] == other[0] for one, other in pairwise(stretches)), stretches
    before = await scene.used("storedMbMs")
    assert {key for key, lay in before.items() if lay} <= set(found)
    names = {row["sandboxId"]: row["name"] for row in await scene.get(FOREVER)}
    await look(scene.platform)
    after = await scene.used("storedMbMs")
    gone = {key for key, name in names.items() if name != "three"}  # its disk is kept for recovery
    assert {key: after[key] for key in gone} == {key: before[key] for key in gone}
