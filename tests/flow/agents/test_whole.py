"""Worker and api together: the real port between them, and sandboxes with the real guest agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from runtools import AsyncRunTools
from runtools.platform.agents.models.build import Models
from runtools.platform.agents.models.http import client
from runtools.platform.agents.points import WORKER_CRASH_POINTS
from runtools.platform.agents.service import Post, serve
from runtools.platform.api.workers.taking import MOST_TAKEOVERS
from runtools.platform.boot import parts
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.outbound import Outbound, networks
from runtools.sdk.sandbox import AsyncSandbox
from runtools.testing import api_world, postgres, small_server
from runtools.testing.local_platform import local_platform
from runtools.testing.scripted_model import Call, Script
from runtools.testing.worker_process import EDITED, LEDGER, Makers, step

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOPBACK = "127.0.0.0/8"
SENDING, WRITTEN = "worker.append.sending", "worker.append.written"
OF_ANSWER = ("worker.taken", "worker.answered", SENDING, WRITTEN)
OF_RESULT = ("worker.call.begun", "worker.call.acted", SENDING, WRITTEN)


@dataclass
class Whole:
    """A platform."""

    url: str
    token: str
    http: httpx.AsyncClient
    rt: AsyncRunTools

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = await self.http.request(method, path, **more)
        assert answer.status_code < 300, answer.text
        return answer.json()["data"]

    async def deploy(self, **agent: Any) -> None:
        """An agent, deployed in a project of its own."""
        made = {"name": "A", "model": "demo", **agent}
        body = {"project": f"p-{agent['slug']}", "agents": [made]}
        plan = await self.ask("POST", "/v1/deploys/plan", json=body)
        deploy = await self.ask("POST", "/v1/deploys", json={**body, "plan": plan["digest"]})
        await self.ask("GET", f"/v1/deploys/{deploy['id']}?waitSeconds=20&done=9")

    async def run(self, slug: str, message: str = "go", **more: Any) -> Any:
        """A run that has ended."""
        body = {"agentSlug": slug, "message": message, **more}
        return await self.ask("POST", "/v1/run?waitSeconds=60", json=body)

    async def events(self, run_id: str) -> list[Any]:
        """All that stands in its log."""
        found = []
        async with self.http.stream("GET", f"/v1/runs/{run_id}/events") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    found.append(httpx.Response(200, text=line[6:]).json())
        return found


@contextlib.asynccontextmanager
async def made(folder: Path, database: str | None = None) -> AsyncIterator[Whole]:
    """A platform without a worker."""
    async with (
        local_platform(folder, database=database, outbound_allow=LOOPBACK) as (url, key),
        AsyncRunTools(key, url) as rt,
        api_world.client(url, key) as http,
    ):
        yield Whole(url, parts.token(Settings(home=folder), "worker"), http, rt)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: Any) -> AsyncIterator[Whole]:
    """One for all tests of a module."""
    async with made(tmp_path_factory.mktemp("platform")) as platform:
        yield platform


@pytest.fixture
def database(cluster: tuple[postgres.Cluster, str]) -> Iterator[str]:
    """A fresh one on PostgreSQL."""
    server, template = cluster
    name = server.create(template)
    yield server.url(name)
    server.drop(name)


@pytest_asyncio.fixture(loop_scope="module")
async def worker(whole: Whole) -> AsyncIterator[None]:
    """A worker, until the test ends."""
    outbound, ending = Outbound(networks(LOOPBACK)), asyncio.Event()
    models = Models(lambda: client(outbound))
    post = Post(whole.url, whole.token, "in-process", 4, models.build, outbound, SystemClock())
    task = asyncio.create_task(serve(post, ending))
    yield
    ending.set()
    await task
    await models.close()
    outbound.close()


async def test_the_demo_agent_does_its_work(whole: Whole, worker: None) -> None:
    await whole.deploy(slug="hello", tools=[], permissions={"*": "allow"})
    run = await whole.run("hello")
    assert run["status"] == "completed", run
    assert "answers: “Hello from a sandbox! 1 visitor so far.”" in run["output"]
    assert f"You find it at http://8000-{run['sandboxId']}." in run["output"]
    assert run["usage"]["costUsd"] == "0"
    sandbox = await whole.rt.sandboxes.get(run["sandboxId"])
    done = await sandbox.exec("cd /workspace/hello-web && python3 -m unittest 2>&1")
    assert "Ran 2 tests" in done.stdout
    again = await whole.run("hello", "again, please", threadId=run["threadId"])
    assert again["sandboxId"] == run["sandboxId"]
    assert "Hello from a sandbox!" in again["output"]


async def test_an_approval_waits_without_a_worker(whole: Whole, worker: None) -> None:
    await whole.deploy(slug="careful", permissions={"bash": "ask"})
    body = {"agentSlug": "careful", "message": "go"}
    run = await whole.ask("POST", "/v1/run?waitSeconds=30", json=body)
    asked = 0
    while run["status"] == "waiting":
        [*_, call] = [
            one["data"]
            for one in await log_of(whole, run["id"])
            if one["type"] == "approval-requested"
        ]
        decision = {"callId": call["callId"], "decision": "allow"}
        await whole.ask("POST", f"/v1/runs/{run['id']}/approve", json=decision)
        asked += 1
        await api_world.holds(partial(moved, whole, run["id"], asked))
        run = await whole.ask("GET", f"/v1/runs/{run['id']}?waitSeconds=30")
    assert asked == 3
    assert run["status"] == "completed", run


async def test_its_servers_end_when_it_waits_and_when_it_ends(whole: Whole, worker: None) -> None:
    """By then its worker's token is good for nothing."""
    command = ["python3", "-u", "-c", Path(small_server.__file__).read_text()]
    served = [{"name": "small", "command": command}]
    await whole.deploy(slug="served", mcpServers=served, permissions={"bash": "ask"})
    sandbox = await whole.rt.sandboxes.create()
    body = {"agentSlug": "served", "message": "go", "sandboxId": sandbox.id}
    run = await whole.ask("POST", "/v1/run?waitSeconds=60", json=body)
    assert run["status"] == "waiting", run
    await api_world.holds(partial(servers_are, sandbox, run["id"], ["ended"]))
    [*_, call] = [
        one["data"] for one in await log_of(whole, run["id"]) if one["type"] == "approval-requested"
    ]
    decision = {"callId": call["callId"], "decision": "deny"}
    await whole.ask("POST", f"/v1/runs/{run['id']}/approve", json=decision)
    await api_world.holds(partial(moved, whole, run["id"], 1))
    await api_world.holds(partial(servers_are, sandbox, run["id"], ["ended", "ended"]))
    await whole.ask("POST", f"/v1/runs/{run['id']}/cancel")


async def servers_are(sandbox: AsyncSandbox, run_id: str, states: list[str]) -> bool:
    """Whether its servers, of each lease one, are in these states."""
    found = [one for one in await sandbox.processes.list() if one.id.startswith(f"mcp.{run_id}.")]
    return [one.state for one in found] == states


async def log_of(whole: Whole, run_id: str) -> list[Any]:
    """What stands in a log that is not at its end yet."""
    found: list[Any] = []
    last = (await whole.ask("GET", f"/v1/runs/{run_id}"))["lastSeq"]
    async with whole.http.stream("GET", f"/v1/runs/{run_id}/events") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                found.append(httpx.Response(200, text=line[6:]).json())
                if found[-1].get("seq") == last:
                    return found
    return found


async def moved(whole: Whole, run_id: str, asked: int) -> bool:
    """Whether a run has come to its next question, or to its end."""
    run = await whole.ask("GET", f"/v1/runs/{run_id}")
    if run["status"] not in ("waiting", "queued", "running"):
        return True
    events = await log_of(whole, run_id)
    return sum(one["type"] == "approval-requested" for one in events) > asked


class Wire:
    """The way between a worker and the api, which breaks when it is told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ways: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def open(self) -> str:
        """Where the api is reached through it."""
        self.server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """What goes through it is gone."""
        for way in self._ways:
            way.transport.abort()
        self._ways.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, on = await asyncio.open_connection("127.0.0.1", self._port)
        self._ways += [writer, on]
        await asyncio.gather(_pass_on(reader, on), _pass_on(there, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_connection_that_breaks_again_and_again_costs_no_run_its_life(whole: Whole) -> None:
    await whole.deploy(slug="far")
    sandbox = await whole.rt.sandboxes.create()
    line = "echo begun; until [ -e go ]; do sleep 0.05; done; echo over >> /workspace/times"
    model = Script([Call("bash", {"command": line})], ["done"]).model()
    wire, outbound, ending = (
        Wire(int(whole.url.rsplit(":", 1)[1])),
        Outbound(networks(LOOPBACK)),
        asyncio.Event(),
    )
    post = Post(
        await wire.open(),
        whole.token,
        "far-away",
        4,
        lambda _: model,
        outbound,
        SystemClock(),
        api_url=whole.url,
    )
    task = asyncio.create_task(serve(post, ending))
    body = {"agentSlug": "far", "message": "go", "sandboxId": sandbox.id}
    run = await whole.ask("POST", "/v1/run?waitSeconds=0", json=body)
    cuts = 0
    async with whole.http.stream("GET", f"/v1/runs/{run['id']}/events", timeout=120) as stream:
        async for text in stream.aiter_lines():
            if not text.startswith("data: "):
                continue
            event = json.loads(text.removeprefix("data: "))
            if event["type"] == "tool-output-delta" and event["data"]["attempt"] > cuts:
                # Under this lease, too, the command is followed again.
                cuts = event["data"]["attempt"]
                if cuts > MOST_TAKEOVERS + 2:
                    await sandbox.files.write("/workspace/go", "")
                else:
                    wire.cut()
    ending.set()
    await task
    assert wire.server is not None
    wire.server.close()
    outbound.close()
    shown = await whole.ask("GET", f"/v1/runs/{run['id']}")
    assert (shown["status"], shown["output"]) == ("completed", "done"), shown
    assert (await sandbox.files.read("/workspace/times")).decode() == "over\n"


async def test_two_hundred_steps_in_three_runs(whole: Whole) -> None:
    await whole.deploy(slug="long", maxIterations=100)
    steps = [[f"Step {n}.", Call("list_directory", {})] for n in range(200)]
    async with working(whole, Script(*steps, ["done"])):
        runs = [await whole.run("long", sandboxId=(await whole.rt.sandboxes.create()).id)]
        while runs[-1]["status"] == "limit_reached":
            more = await whole.ask("POST", f"/v1/runs/{runs[-1]['id']}/continue", json={})
            runs.append(await whole.ask("GET", f"/v1/runs/{more['id']}?waitSeconds=60"))
    assert [one["status"] for one in runs] == ["limit_reached", "limit_reached", "completed"]
    assert [one["iterations"] for one in runs] == [100, 100, 1]
    assert [one["usage"]["requests"] for one in runs] == [100, 100, 1]
    logs = [await whole.events(one["id"]) for one in runs]
    said = [one["data"]["text"] for log in logs for one in log if is_answer(one)]
    assert said == [*(f"Step {n}." for n in range(200)), "done"]
    results = [one["data"] for log in logs for one in log if one["type"] == "tool-result"]
    assert len(results) == 200
    assert not any(one["failed"] for one in results)
    for log in logs:
        kept = [one["seq"] for one in log if one.get("seq")]
        assert kept == list(range(1, len(kept) + 1))


def is_answer(event: Any) -> bool:
    """Whether it is what the model has said in one turn."""
    return event["type"] == "message" and event["data"]["role"] == "assistant"


@contextlib.asynccontextmanager
async def working(whole: Whole, script: Script) -> AsyncIterator[None]:
    """A worker whose model plays a script."""
    model, outbound, ending = script.model(), Outbound(networks(LOOPBACK)), asyncio.Event()
    clock = SystemClock()
    post = Post(whole.url, whole.token, "in-process", 4, lambda _: model, outbound, clock)
    task = asyncio.create_task(serve(post, ending))
    try:
        yield
    finally:
        ending.set()
        await task
        outbound.close()


async def test_killed_at_every_boundary_of_twenty_steps(whole: Whole) -> None:
    await killed_everywhere(whole, 20)


@pytest.mark.skipif(postgres.binaries() is None, reason="PostgreSQL is not installed")
async def test_also_on_postgresql(database: str, tmp_path: Path) -> None:
    async with made(tmp_path, database) as whole:
        await killed_everywhere(whole, 2)


def deaths(steps: int) -> Iterator[str]:
    """Where one worker after the other dies: before and after each append; in every seventh step also at
    each other point on the way to it. So none comes further than one append.
    """
    for number in range(steps + 1):
        calls = len(step(number)) - 1 if number < steps else 0
        for points in (OF_ANSWER, *[OF_RESULT] * calls):
            yield from points if number % 7 == 0 else (SENDING, WRITTEN)


def appends_of(events: list[Any]) -> list[int]:
    """Where each append ends: an answer with what it took, or with its run; a result is alone."""
    ends = [one["seq"] for one in events if one["type"] in ("usage", "tool-result")]
    return [*ends[:-1], events[-1]["seq"]]


async def killed_everywhere(whole: Whole, steps: int) -> None:
    """Play a run of so many steps; nothing is lost, doubled or repeated, wherever its workers died."""
    await whole.deploy(slug="steps")
    sandbox = await whole.rt.sandboxes.create()
    await sandbox.files.write(LEDGER, "")
    await sandbox.files.write(EDITED, "end\n")
    body = {"agentSlug": "steps", "message": "go", "sandboxId": sandbox.id}
    run = await whole.ask("POST", "/v1/run?waitSeconds=0", json=body)
    begun, died = run["lastSeq"], defaultdict[str, list[int]](list)
    makers = await asyncio.to_thread(Makers)
    try:
        for point in deaths(steps):
            pid = await makers.start(whole.url, whole.url, steps, point, whole.token, "worker-1")
            await api_world.holds(partial(makers.is_dead, pid))
            assert await makers.wait(pid) == -signal.SIGKILL
            run = await whole.ask("GET", f"/v1/runs/{run['id']}")
            died[point].append(run["lastSeq"])
    finally:
        await asyncio.to_thread(makers.close)
    assert run["status"] == "completed", run
    assert (run["iterations"], run["usage"]["requests"]) == (steps + 1, steps + 1)
    ledger = (await sandbox.files.read(LEDGER)).decode().split()
    assert ledger == [str(number) for number in range(steps)]
    edited = (await sandbox.files.read(EDITED)).decode().split()
    assert edited == [*(str(number) for number in range(steps) if number % 2), "end"]
    events = [one for one in await whole.events(run["id"]) if one.get("seq")]
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    assert [one["type"] for one in events].index("done") == len(events) - 1
    calls = [one["data"]["callId"] for one in events if one["type"] == "tool-call"]
    results = [one["data"] for one in events if one["type"] == "tool-result"]
    assert len(calls) == len(set(calls)) == sum(len(step(number)) - 1 for number in range(steps))
    assert sorted(one["callId"] for one in results) == sorted(calls)
    assert not any(one["failed"] for one in results)
    # Each boundary was met by both kinds of death, and each point by some.
    appends = appends_of(events)
    assert len(appends) == steps + 1 + len(calls)
    assert died[SENDING] == [begun, *appends[:-1]]
    assert died[WRITTEN] == appends
    assert set(died) == set(WORKER_CRASH_POINTS)
