"""What the api itself costs: each route beside the least that any correct platform must do.

    .venv/bin/python bench/api_overhead.py [seconds per measurement, default 4]

``GET /v1/sandboxes/{id}`` stands beside a bare FastAPI route with the same one-row SELECT through the
same SQLAlchemy engine kind on the same file, and exec beside the host's answer without the api. All of
them run in processes of their own, one after the other and in turns, so that a busy machine slows each
alike. Requests come from one connection of a raw socket: the client costs next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.responses import Response

from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.sandboxes import store
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.db import Database
from runtools.sdk.shapes.inside import ExecResult
from runtools.testing import api_world
from runtools.testing.fake_host import FakeHost

TURNS = 5


class Talk:
    """One kept-alive connection."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def ask(self, request: bytes) -> bytes:
        """Send, and read the whole answer."""
        self._socket.sendall(request)
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._socket.recv(65536)
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += self._socket.recv(65536)
        self._buffer = rest[length:]
        assert head.startswith(b"HTTP/1.1 2"), head + rest
        return rest[:length]


def request(method: str, path: str, key: str = "", body: Any = None) -> bytes:
    """A whole HTTP request."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n"
    if key:
        head += f"Authorization: Bearer {key}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


def serve_api(folder: Path, ready: Any) -> None:
    """The api over a fake host whose commands take no time."""

    def answer(asked: Any) -> ExecResult:
        return ExecResult(
            process_id=asked.process_id,
            stdout="hello\n",
            stderr="",
            encoding="utf-8",
            exit_code=0,
            signal=None,
            duration_ms=0.1,
            timed_out=False,
            truncated=False,
        )

    async def main() -> None:
        host = FakeHost(folder / "host", script=answer)
        db = Database(f"sqlite:///{folder}/runtools.db")
        async with api_world.world(db, folder, host=host) as world:
            made = await world.create(tags={"a": "b"}, env={"A": "b"})
            ready.put((world.url, world.key, made["id"]))
            await asyncio.Event().wait()

    asyncio.run(main())


def serve_bare(folder: Path, ready: Any) -> None:
    """A FastAPI route with the same SELECT, and nothing else."""

    async def main() -> None:
        app, db = FastAPI(), Database(f"sqlite:///{folder}/runtools.db")
        org: list[str] = []

        @app.get("/bare/{sandbox_id}")
        async def bare(sandbox_id: str) -> Response:
            row = await db.read(store.by_id, org[0], sandbox_id)
            assert row is not None
            return Response(row.id, media_type="application/json")

        org.append((await ensure_first(db, SystemClock()))[0])
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            ready.put(f"http://127.0.0.1:{listener.getsockname()[1]}")
            config = uvicorn.Config(app, log_level="warning", access_log=False)
            await uvicorn.Server(config).serve(sockets=[listener])

    asyncio.run(main())


def timed(act: Callable[[], object], seconds: float) -> list[float]:
    """How long each took, in milliseconds."""
    for _ in range(20):
        act()
    took, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        act()
        took.append((time.perf_counter() - begun) * 1000)
    return took


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    spawn = multiprocessing.get_context("spawn")
    folder = Path(tempfile.mkdtemp(prefix="rt-overhead-"))
    queue: Any = spawn.Queue()
    started = [spawn.Process(target=serve_api, args=(folder, queue), daemon=True)]
    started[0].start()
    url, key, sandbox_id = queue.get(timeout=60)
    started.append(spawn.Process(target=serve_bare, args=(folder, queue), daemon=True))
    started[1].start()
    api, plain = Talk(url), Talk(queue.get(timeout=60))
    path = f"/v1/sandboxes/{sandbox_id}"
    get = request("GET", path, key)
    bare = request("GET", f"/bare/{sandbox_id}")
    run = request("POST", f"{path}/exec", key, {"command": "echo hello"})
    create = request("POST", "/v1/sandboxes", key, {})
    acts: dict[str, Callable[[], object]] = {
        "bare route, one-row SELECT": lambda: plain.ask(bare),
        "GET /v1/sandboxes/{id}": lambda: api.ask(get),
        "POST exec (host answers at once)": lambda: api.ask(run),
        "POST sandbox (host answers at once)": lambda: api.ask(create),
    }
    took: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(TURNS):
        for name, act in acts.items():
            took[name] += timed(act, seconds / TURNS)
    for name, times in took.items():
        p95 = statistics.quantiles(times, n=20)[18]
        print(
            f"{name:38} p50 {statistics.median(times):7.3f} ms   p95 {p95:7.3f} ms"
            f"   {1000 / statistics.mean(times):7.0f}/s"
        )
    names = list(acts)
    ratio = statistics.median(took[names[0]]) / statistics.median(took[names[1]])
    print(f"GET beside the bare route: {ratio:.2f} of its speed (wanted: at least 0.5)")
    for process in started:
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
