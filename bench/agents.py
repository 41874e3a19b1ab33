"""What the loop of agents adds to its model, everything persisted, beside a bare httpx loop.

Both ask the same scripted server in the same run. The bare loop reads the same stream, keeps the
conversation in a list and does nothing else. Ours is the real api over SQLite and a worker, a process each,
and readers over HTTP.

An iteration is an answer and the call that it wants: what a long run takes beyond a short one, by the
number of iterations between them. A value is the mean of a run's, so p50 is the median of such means. What
a run takes once (a place in the queue, its worker's first look, its sandbox, the way to who waits for it)
is in no iteration; it has a row of its own, which counts the one answer in. There are two kinds of calls:
one of a tool that does nothing, and one of `get_dev_url`, a request to the api that writes (beside the
sandbox, so that no machine is in it). The bare loop makes the same request then, for that is the tool's
work and not the loop's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, text

from bench.section import Bench
from bench.table import (
    Row,
    Series,
    at_least_floor_times,
    at_most,
    at_most_floor_plus,
    at_most_floor_times,
    row,
)
from runtools.platform.agents.models.build import Models
from runtools.platform.agents.models.http import client
from runtools.platform.agents.service import Post, serve
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.db import Database
from runtools.platform.kit.outbound import Outbound, networks
from runtools.testing import api_world
from runtools.testing.fake_provider import FakeProvider, Pause, provider
from runtools.testing.scripted_model import Call

STEPS = 60
READERS = 100
EVENTS = 10_000
ROUNDS = 5
LOOPBACK = "127.0.0.0/8"

Loop = Callable[[FakeProvider], Awaitable[float]]
"""Plays a script to its end, and says how many milliseconds it took."""


def measure(bench: Bench | None) -> Iterator[Row]:
    """Milliseconds, and two ratios."""
    rounds = 2 if bench is not None and bench.quick else ROUNDS
    with (
        tempfile.TemporaryDirectory(prefix="runtools-bench-", dir="/var/tmp") as folder,
        _process(_platform, folder) as told,
        _process(_worker, told["url"], told["token"]),
    ):
        yield from asyncio.run(_measure(told, rounds))
        yield _memory(told)


async def _measure(told: dict[str, Any], rounds: int) -> list[Row]:
    first = Series()
    async with api_world.client(told["url"], told["key"]) as http:
        loops = await _loops(http, rounds)
        for number in range(rounds):
            async with provider(
                "chat", [Pause(0.3), "a", Pause(0.05), "b", Pause(0.05), "c"]
            ) as fake:
                first.values += await _deltas(
                    http, await _agent(http, f"delta-{number}", fake), fake
                )
        return [
            *loops,
            row("a delta at a reader, after the provider sent it", first, wanted=[at_most(5)]),
            await _readers(http, rounds),
            await _replay(http, told["database"], rounds),
        ]


async def _loops(http: httpx.AsyncClient, rounds: int) -> list[Row]:
    """Iterations of both loops, and their runs of one answer, turn about."""
    sandbox = (await _ask(http, "POST", "/v1/sandboxes", json={}))["id"]
    idle, writes = Call("no_tool", {"port": 80}), Call("get_dev_url", {"port": 80})
    slugs = (f"loop-{number}" for number in itertools.count())
    ours = partial(_ours, http, slugs)
    bare, bare_writes = partial(_bare, None), partial(_bare, partial(_link, http, sandbox))
    kinds = [(bare, idle), (ours, idle), (bare_writes, writes), (ours, writes)]
    each: list[Series] = [Series() for _ in kinds]
    once = {bare: Series(), ours: Series()}
    async with provider("chat", ["done"]) as fake:
        await ours(fake)  # the worker loads what it asks such a provider with
    for _ in range(rounds):
        for series, (loop, call) in zip(each, kinds, strict=True):
            series.values.append(await _iteration(loop, call))
        for loop, series in once.items():
            async with provider("chat", ["done"]) as fake:
                series.values.append(await loop(fake))
    wanted = [at_most_floor_plus(8)]
    return [
        row("an iteration, everything persisted", each[1], each[0], wanted=wanted),
        row("the same with a call that writes over the API", each[3], each[2], wanted=wanted),
        row("a run of one answer, from the request to its end", once[ours], once[bare]),
    ]


async def _iteration(loop: Loop, call: Call) -> float:
    """The milliseconds that each further iteration of a run takes."""
    took = []
    for steps in (1, STEPS + 1):
        async with provider(
            "chat", *([f"Step {n}.", call] for n in range(steps)), ["done"]
        ) as fake:
            took.append(await loop(fake))
    return (took[1] - took[0]) / STEPS


async def _ours(http: httpx.AsyncClient, slugs: Iterator[str], fake: FakeProvider) -> float:
    """The milliseconds of a run."""
    slug = await _agent(http, next(slugs), fake)
    began = time.perf_counter()
    await _run(http, slug)
    return (time.perf_counter() - began) * 1000


async def _link(http: httpx.AsyncClient, sandbox: str, call_id: str) -> str:
    """What `get_dev_url` does."""
    path, key = f"/v1/sandboxes/{sandbox}/urls/80/links", {"Idempotency-Key": call_id}
    made = await _ask(http, "POST", path, json={"ttlSeconds": 3600}, headers=key)
    return str(made["url"])


async def _bare(tool: Callable[[str], Awaitable[str]] | None, fake: FakeProvider) -> float:
    """The milliseconds of a loop that keeps nothing."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    began = time.perf_counter()
    async with httpx.AsyncClient(trust_env=False) as http:
        while True:
            body = {"model": "m", "stream": True, "messages": messages}
            calls: list[dict[str, Any]] = []
            async with http.stream("POST", f"{fake.url}/chat/completions", json=body) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            calls += choice["delta"].get("tool_calls", [])
            if not calls:
                return (time.perf_counter() - began) * 1000
            messages.append({"role": "assistant", "tool_calls": calls})
            for call in calls:
                key = f"{fake.url}-{len(messages)}"
                said = "there are none" if tool is None else await tool(key)
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})


async def _agent(http: httpx.AsyncClient, slug: str, fake: FakeProvider) -> str:
    """An agent on the provider."""
    await _ask(http, "POST", "/v1/model-endpoints", json={"slug": slug, "url": fake.url})
    agent = {"slug": slug, "name": "B", "model": f"{slug}:any", "max_iterations": 100}
    body = {"project": slug, "agents": [agent]}
    plan = await _ask(http, "POST", "/v1/deploys/plan", json=body)
    made = await _ask(http, "POST", "/v1/deploys", json={**body, "plan": plan["digest"]})
    await _ask(http, "GET", f"/v1/deploys/{made['id']}?waitSeconds=20&done=9")
    return slug


async def _run(http: httpx.AsyncClient, slug: str) -> dict[str, Any]:
    body = {"agentSlug": slug, "message": "go"}
    run: dict[str, Any] = await _ask(http, "POST", "/v1/run?waitSeconds=120", json=body)
    assert run["status"] == "completed", run
    return run


async def _ask(http: httpx.AsyncClient, method: str, path: str, **more: Any) -> Any:
    answer = await http.request(method, path, **more)
    assert answer.status_code < 300, answer.text
    return answer.json()["data"]


async def _deltas(http: httpx.AsyncClient, slug: str, fake: FakeProvider) -> list[float]:
    """How long after the provider's each piece of text came to a reader."""
    body = {"agentSlug": slug, "message": "go", "stream": True}
    came: list[float] = []
    async with http.stream("POST", "/v1/run", json=body) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: ") and '"text-delta"' in line:
                came.append(asyncio.get_running_loop().time())  # noqa: PERF401 - the time is when it came
    return [(at - sent) * 1000 for at, sent in zip(came, fake.stamps, strict=False)]


async def _readers(http: httpx.AsyncClient, rounds: int) -> Row:
    """A hundred readers of one run, beside one: how long its last event takes to all of them."""
    words = [f"word {n} " for n in range(200)]
    alone, all_ = Series(), Series()
    for number, (count, series) in product(range(rounds), ((1, alone), (READERS, all_))):
        async with provider("chat", [Pause(2.0), *words]) as fake:  # by then all of them read
            slug = await _agent(http, f"readers-{number}-{count}", fake)
            body = {"agentSlug": slug, "message": "go"}
            run = await _ask(http, "POST", "/v1/run?waitSeconds=0", json=body)
            read = await asyncio.gather(*(_read(http, run["id"]) for _ in range(count)))
            assert {said for _, said in read} == {"".join(words)}, "pieces are missing"
            series.values.append((max(at for at, _ in read) - fake.stamps[-1]) * 1000)
    return row(f"a run of {len(words)} pieces to {READERS} readers, after its end", all_, alone)


async def _read(http: httpx.AsyncClient, run_id: str) -> tuple[float, str]:
    """When the end of a run came to a reader, and what it was told live until then."""
    said = ""
    async with http.stream("GET", f"/v1/runs/{run_id}/events") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: ") and '"text-delta"' in line:
                said += json.loads(line.removeprefix("data: "))["data"]["text"]
            elif line.startswith("data: ") and '"done"' in line:
                break
    return asyncio.get_running_loop().time(), said


async def _replay(http: httpx.AsyncClient, database: str, rounds: int) -> Row:
    """Events a second of a long log, beside a bare query of the same rows that writes them as JSON."""
    async with provider("chat", ["done"]) as fake:
        run = await _run(http, await _agent(http, "replay", fake))
    engine = create_engine(database)
    with engine.begin() as conn:
        [columns] = [
            [
                one[1]
                for one in conn.execute(text("PRAGMA table_info(run_events)"))
                if one[1] != "id"
            ]
        ]
        names = ", ".join(columns)
        seq = "n + (SELECT max(seq) FROM run_events WHERE run_id = :run)"
        given = ", ".join({"seq": seq, "key": "'bench:' || n"}.get(name, name) for name in columns)
        numbers = (
            f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {EVENTS})"
        )
        copied = "FROM c, run_events WHERE run_id = :run AND seq = 2"
        conn.execute(
            text(f"INSERT INTO run_events ({names}) {numbers} SELECT {given} {copied}"),
            {"run": run["id"]},
        )
    ours, floor = Series(), Series()
    for _ in range(rounds):
        began = time.perf_counter()
        count = 0
        async with http.stream("GET", f"/v1/runs/{run['id']}/events?after=0") as stream:
            async for line in stream.aiter_lines():
                count += line.startswith("data: ")
                if count >= EVENTS:
                    break
        ours.values.append(count / (time.perf_counter() - began))
        began = time.perf_counter()
        with engine.connect() as conn:
            query = text("SELECT * FROM run_events WHERE run_id = :run ORDER BY seq")
            rows = conn.execute(query, {"run": run["id"]}).mappings()
            found = [json.dumps(dict(one), default=str) for one in rows]
        floor.values.append(len(found) / (time.perf_counter() - began))
    return row(
        "events a second, replayed", ours, floor, unit="1/s", wanted=[at_least_floor_times(0.3)]
    )


_BARE = "from runtools.platform.agents import service"
_IDLE = """
import asyncio, logging, sys
from runtools.platform.agents import service
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.outbound import Outbound
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
url, token = sys.argv[1:]
post = service.Post(url, token, "idle", 20, None, Outbound(), SystemClock())
asyncio.run(service.serve(post, asyncio.Event()))
"""


def _memory(told: dict[str, Any]) -> Row:
    """The memory of a worker that is connected and idle, beside a process that has imported the same."""
    bare = f"{_BARE}\nimport time\nprint('ready', flush=True)\ntime.sleep(60)"
    return row(
        "MB of an idle worker",
        Series([_rss(_IDLE, told["url"], told["token"])]),
        Series([_rss(bare)]),
        unit="MB",
        wanted=[at_most_floor_times(1.15)],
    )


def _rss(program: str, *given: str) -> float:
    """A program's memory once it has said that it is ready, and stands still."""
    words = [sys.executable, "-c", program, *given]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        while "ready" not in (line := process.stdout.readline()):
            if not line:
                raise RuntimeError("the program ended before it was ready")
        found: list[int] = []
        status = Path(f"/proc/{process.pid}/status")
        while len(found) < 20 or statistics.pstdev(found[-10:]) > 0:  # until it stands still
            time.sleep(0.2)
            lines = dict(
                line.split(":", 1) for line in status.read_text().splitlines() if ":" in line
            )
            found.append(int(lines["VmRSS"].split()[0]))
        return found[-1] / 1024
    finally:
        process.kill()
        process.wait()


@contextmanager
def _process(serve_: Any, *given: str) -> Iterator[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    ready: Any = spawn.Queue()
    server = spawn.Process(target=serve_, args=(*given, ready), daemon=True)
    server.start()
    try:
        yield ready.get(timeout=120)
    finally:
        server.terminate()
        server.join()


def _platform(folder: str, ready: Any) -> None:
    asyncio.run(_serve_platform(Path(folder), ready))


async def _serve_platform(folder: Path, ready: Any) -> None:
    url = f"sqlite:///{folder}/api/runtools.db"
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(
            api_world.world(Database(url), folder, outbound_allow=LOOPBACK, checked=False)
        )
        told = {"url": world.url, "key": world.key, "token": world.token("worker"), "database": url}
        ready.put(told)
        await asyncio.Event().wait()


def _worker(url: str, token: str, ready: Any) -> None:
    asyncio.run(_serve_worker(url, token, ready))


async def _serve_worker(url: str, token: str, ready: Any) -> None:
    outbound = Outbound(networks(LOOPBACK))
    models = Models(lambda: client(outbound))
    ready.put({})
    await serve(
        Post(url, token, "bench", 20, models.build, outbound, SystemClock()), asyncio.Event()
    )
