"""The api is killed at every named point, and at random: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import WebSocketException

from runtools.errors import RunToolsError
from runtools.platform.api.deploys.work import LEASE
from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.points import API_CRASH_POINTS
from runtools.platform.api.schema import upgrade
from runtools.platform.core.states import State
from runtools.platform.host.server import serving
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.testing import api_process, api_world
from runtools.testing.api_world import client, holds
from runtools.testing.fake_host import FakeHost
from runtools.testing.fake_worker import Held, answered, called, done, fake_worker, said, used
from runtools.testing.forks import Maker
from runtools.testing.made_once import sqlite_url

ROUNDS, LIVES = 6, 3


class Later(SystemClock):
    """The time at which whatever a dead process had a lease on is free."""

    def now(self) -> datetime:
        return super().now() + LEASE


@dataclass
class Rig:
    """A host that lives on, and an api that dies."""

    folder: Path
    host: FakeHost
    apis: Maker
    pid: int | None = None
    url: str = ""
    deaths: int = 0
    http: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """The api in this process, to look at what is there; it ends in order."""
        clock = Later() if self.deaths else SystemClock()
        db = Database(sqlite_url(self.folder))
        await upgrade(db)
        _, key = await ensure_first(db, clock)
        if key is not None:
            (self.folder / "key").write_text(key)
        settings = Settings(home=self.folder)
        async with (
            RemoteHost(self.folder / "host.sock") as remote,
            api_world.serving(db, {api_world.HOST_ID: remote}, clock, settings) as (url, _),
            self._talking(url),
        ):
            yield

    @asynccontextmanager
    async def doomed(self, point: str = "") -> AsyncIterator[None]:
        """The api in a process of its own, to die at the point; it is dead at the end."""
        url = self.folder / "url"
        url.unlink(missing_ok=True)
        order = {"folder": str(self.folder), "host": str(self.folder / "host.sock"), "point": point}
        self.pid = await self.apis.start(order, self.folder / "log")
        try:
            await holds(lambda: url.exists() or self._is_dead(), 60)
            if url.exists():
                async with self._talking(url.read_text()):
                    yield
            else:
                yield
        finally:
            await self.kill()

    @asynccontextmanager
    async def _talking(self, url: str) -> AsyncIterator[None]:
        self.url = url
        async with client(url, (self.folder / "key").read_text()) as self.http:
            yield

    async def died(self) -> bool:
        """Whether it has died by SIGKILL, in a few seconds."""
        await holds(self._is_dead, 20)
        assert self.pid is not None
        pid, self.pid = self.pid, None
        self.deaths += 1
        return await self.apis.wait(pid) == -signal.SIGKILL

    async def kill(self) -> None:
        """Kill it now, if it is there."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            await self.died()

    def _is_dead(self) -> bool:
        """Whether it waits for nothing but to be asked how it ended."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "Z"

    async def act(self, method: str, path: str, key: str, body: Any = None) -> Any:
        """An act with a key; None when the api died under it."""
        assert self.http is not None
        with contextlib.suppress(httpx.TransportError):
            headers = {"Idempotency-Key": key}
            answer = await self.http.request(method, f"/v1{path}", json=body, headers=headers)
            assert answer.status_code < 300, answer.text
            return answer.json()["data"]
        return None

    async def get(self, path: str) -> Any:
        """What is shown."""
        assert self.http is not None
        answer = await self.http.get(f"/v1{path}")
        return answer.json()["data"] if answer.status_code == 200 else None

    async def state(self, ref: str) -> str | None:
        """A sandbox's state."""
        shown = await self.get(f"/sandboxes/{ref}")
        return None if shown is None else str(shown["state"])


@pytest.fixture(scope="module")
def apis() -> Iterator[Maker]:
    made = Maker(api_process.__name__)
    yield made
    made.close()


@pytest_asyncio.fixture
async def rig(tmp_path: Path, apis: Maker) -> AsyncIterator[Rig]:
    """A rig with a template, and a sandbox `old` with a snapshot `kept`; the api is down."""
    host = FakeHost(tmp_path / "host")
    async with serving(host, tmp_path / "host.sock"):
        made = Rig(tmp_path, host, apis)
        async with made.alive():
            await made.act("POST", "/templates/base-debian/builds", "t0", {})
            await made.act("POST", "/templates/spare/builds", "t1", {"recipe": "base-debian"})
            await holds(lambda: _ready(made))
            await made.act("POST", "/sandboxes", "s0", {"name": "old"})
            await made.act("POST", "/sandboxes/old/snapshots", "n0", {"name": "kept"})
        yield made


async def _ready(rig: Rig) -> bool:
    return all(template["state"] == "ready" for template in await rig.get("/templates"))


@dataclass(frozen=True)
class Case:
    """An act, and what holds once it is done."""

    method: str
    path: str
    body: Any
    done: Callable[[Rig], Awaitable[bool]]


async def _running(rig: Rig) -> bool:
    return await rig.state("new") == "running" and _machines(rig, State.RUNNING) == 2


async def _forked(rig: Rig) -> bool:
    states = [await rig.state(f"kid-{n}") for n in (1, 2)]
    return states == ["running"] * 2 and _machines(rig, State.RUNNING) == 3


async def _paused(rig: Rig) -> bool:
    return await rig.state("old") == "paused" and _machines(rig, State.PAUSED) == 1


async def _stopped(rig: Rig) -> bool:
    return await rig.state("old") == "stopped" and _machines(rig, State.STOPPED) == 1


async def _kept(rig: Rig) -> bool:
    names = [snapshot["name"] for snapshot in await rig.get("/sandboxes/old/snapshots")]
    return names == ["kept", "fresh"] and len(rig.host.snapshots) == 2


async def _dropped(rig: Rig) -> bool:
    return not await rig.get("/sandboxes/old/snapshots") and not rig.host.snapshots


async def _built(rig: Rig) -> bool:
    versions = await rig.get("/templates/base-debian/versions")
    return [(v["version"], v["state"]) for v in versions] == [(2, "ready"), (1, "ready")]


async def _undone(rig: Rig) -> bool:
    return await rig.get("/templates/spare") is None and len(rig.host.builds) == 1


async def _deployed(rig: Rig) -> bool:
    """All of it is done, each command of the setup was run once, and nothing is left over."""
    (latest, *_) = await rig.get("/deploys")
    if latest["state"] != "done":
        return False
    standing = {one["slug"]: one for one in await rig.get("/standing-sandboxes")}
    assert (set(standing), latest["done"]) == ({"dev", "kept"}, 4)
    assert (await rig.get("/agents/hello"))["version"] == 1
    assert (await rig.get("/sandboxes/shop-kept"))["idleTimeoutSeconds"] == 7
    assert (await rig.get("/sandboxes/shop-dev"))["id"] == standing["dev"]["sandboxId"]
    return await _made(rig) == b"two\n" and _machines(rig, State.RUNNING) == 3


async def _deploy_failed(rig: Rig) -> bool:
    """It says so, and what stood before stands."""
    (latest, *_) = await rig.get("/deploys")
    if latest["state"] != "failed":
        return False
    assert latest["error"]["code"] == "setup_failed"
    return await _made(rig) == b"one\n" and _machines(rig, State.RUNNING) == 4


async def _made(rig: Rig) -> bytes:
    assert rig.http is not None
    answer = await rig.http.get("/v1/sandboxes/shop-dev/files?path=/workspace/made")
    return answer.content


def _machines(rig: Rig, state: State) -> int:
    return sum(machine.state is state for machine in rig.host.machines.values())


async def _adds_up(rig: Rig) -> None:
    """Each ran for as long as its host says, to the millisecond; of what is gone nothing lies anywhere."""
    until = SystemClock().now()
    told = _told(rig, until)

    async def same() -> bool:
        return await _used(rig, until, "runningMs") == told

    await holds(same)
    gone = {key for key, one in rig.host.machines.items() if one.state is State.STOPPED}
    # The clock of an api that comes after a dead one is ahead here: both looks are at all there is.
    lay, later = [await _used(rig, until + 9 * LEASE, "storedMbMs") for _ in range(2)]
    assert {key: later.get(key) for key in gone} == {key: lay.get(key) for key in gone}


async def _used(rig: Rig, until: datetime, what: str) -> dict[str, int]:
    """What the api has counted of each sandbox."""
    to = until.isoformat().replace("+00:00", "Z")
    rows = await rig.get(f"/usage?from=2020-01-01T00:00:00Z&to={to}&limit=100")
    return {row["sandboxId"]: row[what] for row in rows if row[what]}


def _told(rig: Rig, until: datetime) -> dict[str, int]:
    """For how many milliseconds each sandbox ran, by what its host has reported."""
    found: Counter[str] = Counter()
    since: dict[str, int] = {}
    for seen in rig.host._log:
        at = _millis(seen.at)
        if seen.state == "running":
            since.setdefault(seen.sandbox_id, at)
        elif (began := since.pop(seen.sandbox_id, None)) is not None:
            found[seen.sandbox_id] += at - began
    for sandbox_id, began in since.items():
        found[sandbox_id] += _millis(until) - began
    return {sandbox_id: ran for sandbox_id, ran in found.items() if ran}


def _millis(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


CREATE = Case("POST", "/sandboxes", {"name": "new"}, _running)
RECOVER = Case("POST", "/sandboxes/dead/recover", {"name": "new"}, _running)
FORK = Case("POST", "/sandboxes/old/fork", {"count": 2, "name": "kid"}, _forked)
PAUSE = Case("POST", "/sandboxes/old/pause", None, _paused)
RESUME = Case("POST", "/sandboxes/new/resume", None, _running)
DESTROY = Case("DELETE", "/sandboxes/old", None, _stopped)
SNAPSHOT = Case("POST", "/sandboxes/old/snapshots", {"name": "fresh"}, _kept)
DROP = Case("DELETE", "/sandboxes/old/snapshots/kept", None, _dropped)
BUILD = Case("POST", "/templates/base-debian/builds", {}, _built)
DELETE = Case("DELETE", "/templates/spare", None, _undone)


def _project(**dev: Any) -> dict[str, Any]:
    """A project whose sandbox `dev` is made anew, `kept` is changed and `gone` is pruned."""
    return {
        "project": "shop",
        "prune": True,
        "sandboxes": [
            {"slug": "dev", **dev},
            {"slug": "kept", "idleTimeoutSeconds": 7},
        ],
        "agents": [{"slug": "hello", "name": "Hello", "model": "demo", "sandbox": "dev"}],
    }


_STOOD = {
    "project": "shop",
    "sandboxes": [
        {"slug": "dev", "setup": ["echo one >> made"]},
        {"slug": "kept"},
        {"slug": "gone"},
    ],
}
DEPLOY = Case("POST", "/deploys", _project(setup=["echo two >> made"]), _deployed)
FAILING = Case("POST", "/deploys", _project(setup=["echo two >> made", "exit 1"]), _deploy_failed)

CASES = [
    ("api.idempotency.begun", CREATE),
    ("api.idempotency.answered", CREATE),
    ("api.audit.unanswered", CREATE),
    ("api.audit.unanswered", DESTROY),
    ("api.create.written", CREATE),
    ("api.create.asked", CREATE),
    ("api.recover.written", RECOVER),
    ("api.fork.written", FORK),
    ("api.fork.asked", FORK),
    ("api.pause.written", PAUSE),
    ("api.resume.written", RESUME),
    ("api.destroy.written", DESTROY),
    ("api.act.asked", PAUSE),
    ("api.act.asked", DESTROY),
    ("api.snapshot.written", SNAPSHOT),
    ("api.snapshot.asked", SNAPSHOT),
    ("api.snapshot.dropping", DROP),
    ("api.build.written", BUILD),
    ("api.template.dropping", DELETE),
    ("api.deploy.written", DEPLOY),
    ("api.deploy.made", DEPLOY),
    ("api.deploy.set_up", DEPLOY),
    ("api.deploy.taken_over", DEPLOY),
    ("api.deploy.changed", DEPLOY),
    ("api.deploy.destroyed", DEPLOY),
    ("api.deploy.noted", DEPLOY),
    ("api.deploy.noted#3", DEPLOY),
    ("api.deploy.noted#4", DEPLOY),
    ("api.deploy.stumbled", FAILING),
    ("api.report.taken", CREATE),
    ("api.report.taken#2", CREATE),
    ("api.report.taken", FORK),
    ("api.report.taken#2", FORK),
    ("api.report.taken", DESTROY),
]


RUN_POINTS = (
    "api.run.written",
    "api.run.appended",
    "api.run.appended#3",
    "api.run.taken",
    "api.run.placed",
)


async def _drive(rig: Rig) -> None:
    """A worker that does the same with every run, whatever becomes of its connection."""
    while True:
        with contextlib.suppress(RunToolsError, OSError, TimeoutError, WebSocketException):
            token = (rig.folder / "run" / "worker.token").read_text()
            async with fake_worker(rig.url, token) as worker:
                while True:
                    offer = await worker.offered()
                    await worker.take(offer)
                    run = Held(run_id=offer.run_id, lease=offer.lease)
                    await worker.place(run)
                    await worker.append(run, said("I look."), used(), called("bash"))
                    await worker.append(run, answered("bash"), said("Done.", 2), used(2))
                    await worker.append(run, done("Done."))
        await asyncio.sleep(0.02)


class TestRuns:
    @pytest.mark.parametrize("point", RUN_POINTS)
    async def test_killed_there(self, rig: Rig, point: str) -> None:
        async with rig.alive():
            body = {"project": "p", "agents": [{"slug": "hello", "name": "H", "model": "demo"}]}
            plan = await rig.act("POST", "/deploys/plan", "p0", body)
            await rig.act("POST", "/deploys", "d0", {**body, "plan": plan["digest"]})
            await holds(lambda: _agent(rig))
        work = {"agentSlug": "hello", "message": "Do it."}
        driving = asyncio.create_task(_drive(rig))
        try:
            async with rig.doomed(point):
                await rig.act("POST", "/run?waitSeconds=0", "the-run", work)
                assert await rig.died()
            async with rig.alive():
                again = await rig.act("POST", "/run?waitSeconds=0", "the-run", work)
                made = await rig.get(f"/runs/{again['id']}?waitSeconds=30")
                assert (made["status"], made["output"]) == ("completed", "Done.")
                assert made["usage"]["requests"] == 2
                assert made["lastSeq"] == 2 + 3 + 3 + 1
                assert [one["id"] for one in await rig.get("/runs")] == [made["id"]]
                boxes = await rig.get(f"/sandboxes?tag=thread:{made['threadId']}")
                assert [one["id"] for one in boxes] == [made["sandboxId"]]
                seen = await rig.get(f"/threads/{made['threadId']}/export")
                assert [one["seq"] for one in seen["events"]] == list(range(1, 10))
        finally:
            driving.cancel()
            await asyncio.wait((driving,))


async def _agent(rig: Rig) -> bool:
    return await rig.get("/agents/hello") is not None


class TestPoints:
    def test_every_point_has_a_case(self) -> None:
        cased = {point.partition("#")[0] for point, _ in CASES}
        assert cased | {point.partition("#")[0] for point in RUN_POINTS} == set(API_CRASH_POINTS)

    @pytest.mark.parametrize(
        ("point", "case"), CASES, ids=[f"{p}-{c.path.rpartition('/')[2]}" for p, c in CASES]
    )
    async def test_killed_there(self, rig: Rig, point: str, case: Case) -> None:
        if case in (RECOVER, RESUME, DEPLOY, FAILING):
            async with rig.alive():
                case = await self._before(rig, case)
        async with rig.doomed(point):
            await rig.act(case.method, case.path, "the-key", case.body)
            assert await rig.died()
        async with rig.alive():
            if point != "api.idempotency.begun":  # there nothing was wished for yet
                await holds(lambda: case.done(rig))
            again = await rig.act(case.method, case.path, "the-key", case.body)
            assert again is not None
            assert await case.done(rig)
            await _adds_up(rig)

    async def _before(self, rig: Rig, case: Case) -> Case:
        if case in (DEPLOY, FAILING):
            await self._deploy(rig, _STOOD)
            shown = await rig.act("POST", "/deploys/plan", "p2", case.body)
            losing = {"plan": shown["digest"], "losing": ["dev", "gone"]}
            return replace(case, body={**case.body, **losing})
        name = "dead" if case is RECOVER else "new"
        made = await rig.act("POST", "/sandboxes", "s1", {"name": name})
        if case is RECOVER:
            await rig.host.die(made["id"], "gone")
            await holds(lambda: _is(rig, "dead", "stopped"))
        else:
            await rig.act("POST", "/sandboxes/new/pause", "p1")
        return case

    async def _deploy(self, rig: Rig, body: dict[str, Any]) -> None:
        shown = await rig.act("POST", "/deploys/plan", "p0", body)
        made = await rig.act("POST", "/deploys", "d0", {**body, "plan": shown["digest"]})
        path = f"/deploys/{made['id']}?waitSeconds=60&done=9"
        assert (await rig.get(path))["state"] == "done"


async def _is(rig: Rig, ref: str, state: str) -> bool:
    return await rig.state(ref) == state


class TestRandom:
    async def test_killed_at_any_time(self, rig: Rig) -> None:
        """Rounds of acts under a killer; all of them are repeated to their end afterwards."""
        seed = int(os.environ.get("CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
        sys.stderr.write(f"CRASH_SEED={seed}\n")
        dice = random.Random(seed)
        for turn in range(ROUNDS):
            async with rig.doomed():
                working = [
                    asyncio.create_task(self._life(rig, f"r{turn}-{n}")) for n in range(LIVES)
                ]
                await asyncio.sleep(dice.uniform(0.005, 0.4))
                await rig.kill()
                await asyncio.wait(working)
        async with rig.alive():
            for turn in range(ROUNDS):
                for n in range(LIVES):
                    await self._life(rig, f"r{turn}-{n}")
            await holds(lambda: self._agree(rig))
            await _adds_up(rig)

    async def _life(self, rig: Rig, name: str) -> None:
        """Make one, pause it, fork it, end it; every act with a key that a repeat has again."""
        await rig.act("POST", "/sandboxes", f"{name}-c", {"name": name})
        await rig.act("POST", f"/sandboxes/{name}/pause", f"{name}-p")
        await rig.act("POST", f"/sandboxes/{name}/fork", f"{name}-f", {"name": f"{name}-kid"})
        await rig.act("DELETE", f"/sandboxes/{name}", f"{name}-d")

    async def _agree(self, rig: Rig) -> bool:
        """Both sides see the same: ended parents, running children, and `old`."""
        shown: dict[str, str] = {}
        for state in ("running", "paused", "stopped", "creating"):
            for sandbox in await rig.get(f"/sandboxes?limit=100&state={state}"):
                shown[sandbox["id"]] = sandbox["state"]
        seen = {key: machine.state.value for key, machine in rig.host.machines.items()}
        counts = [list(shown.values()).count(state) for state in ("running", "stopped")]
        return shown == seen and counts == [ROUNDS * LIVES + 1, ROUNDS * LIVES]
