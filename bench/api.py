"""What the api itself costs: one GET beside a bare FastAPI route, and how soon a revocation acts.

The bare route looks up the key and asks for the same row of the same database through plain SQLAlchemy and
does nothing else: no rights, no envelope. It does so on the event loop itself, which for one caller is the
fastest plain way: a thread costs a hop, and an asynchronous driver several. What it is beside one that asks
for no key either is a row without a bound. Both are processes of their own and answer in turns; requests go
over a raw socket that is kept open, so the client costs next to nothing.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import socket
import time
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from sqlalchemy import Connection, MetaData, Table, bindparam, create_engine, select

from bench.crowd import born
from bench.section import Bench
from bench.table import Row, Series, at_least_floor_times, at_most, row
from runtools.platform.boot.api import database_url
from runtools.platform.kit.config import load
from runtools.sdk.settings import resolve

TURN_SECONDS, TURNS = 1.0, 10


def measure(bench: Bench) -> Iterator[Row]:
    """Requests a second, and milliseconds from a revocation's answer to the first refusal."""
    settings = resolve()
    box = born(bench.rt)
    path = f"/v1/sandboxes/{box.id}"
    spawn = multiprocessing.get_context("spawn")
    ready: Any = spawn.Queue()
    server = spawn.Process(target=serve_bare, args=(database_url(load()), ready), daemon=True)
    server.start()
    try:
        plain, api = Talk(ready.get(timeout=60)), Talk(settings.url)
        bare, keyless, ours = Series(), Series(), Series()
        for _ in range(TURNS // 3 if bench.quick else TURNS):
            bare.values.append(per_second(plain, repeat(get(f"/bare/{box.id}", settings.api_key))))
            keyless.values.append(per_second(plain, repeat(get(f"/keyless/{box.id}"))))
            ours.values.append(per_second(api, repeat(get(path, settings.api_key))))
    finally:
        server.terminate()
        server.join()
    wanted = [at_least_floor_times(0.5)]
    name = "GET /v1/sandboxes/{id}"
    yield row(name, ours, bare, unit="requests/s", wanted=wanted)
    yield row(f"{name}, beside a route without a key", ours, keyless, unit="requests/s")
    gone = Series([_revoked(bench, api, path) for _ in range(bench.rounds)])
    box.destroy()
    yield row("a revoked key is refused after", gone, wanted=[at_most(1000)])


def per_second(talk: Talk, requests: Iterator[bytes]) -> float:
    """How many of the requests are answered in a second, one after another."""
    for _ in range(20):
        talk.ask(next(requests))
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < TURN_SECONDS:
        if talk.ask(next(requests)) != 200:
            raise RuntimeError("the route does not answer with what was asked for")
        count += 1
    return count / took


def _revoked(bench: Bench, api: Talk, path: str) -> float:
    key = bench.rt.api_keys.create("bench")
    assert key.key is not None
    request = get(path, key.key)
    if api.ask(request) != 200:  # admitted, and believed for a while
        raise RuntimeError("a new key is not admitted")
    bench.rt.api_keys.revoke(key.id)
    began = time.perf_counter()
    while api.ask(request) != 401:
        pass
    return (time.perf_counter() - began) * 1000


def serve_bare(url: str, ready: Any) -> None:
    """The least that answers: runs in a process of its own and puts its address into the queue."""
    engine = create_engine(
        url.replace("postgresql:", "postgresql+psycopg:"),
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
    )
    meta = MetaData()
    with engine.connect() as conn:
        sandboxes, keys = (
            Table(name, meta, autoload_with=conn) for name in ("sandboxes", "api_keys")
        )
    one = select(sandboxes).where(sandboxes.c.id == bindparam("id"))
    living = select(keys.c.org_id).where(
        keys.c.digest == bindparam("digest"), keys.c.revoked_at.is_(None)
    )
    app = FastAPI()

    def answer(conn: Connection, sandbox_id: str) -> Response:
        found = conn.execute(one, {"id": sandbox_id}).mappings().one()
        return Response(json.dumps(dict(found)), media_type="application/json")

    @app.get("/bare/{sandbox_id}")
    async def bare(sandbox_id: str, request: Request) -> Response:
        key = request.headers["authorization"].removeprefix("Bearer ")
        with engine.connect() as conn:
            conn.execute(living, {"digest": hashlib.sha256(key.encode()).hexdigest()}).one()
            return answer(conn, sandbox_id)

    @app.get("/keyless/{sandbox_id}")
    async def keyless(sandbox_id: str) -> Response:
        with engine.connect() as conn:
            return answer(conn, sandbox_id)

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ready.put(f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


class Talk:
    """One connection that is kept open."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def ask(self, request: bytes) -> int:
        """Send, read the whole answer, give its status."""
        self._socket.sendall(request)
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, _ = self._buffer.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        whole = len(head) + 4 + length
        while len(self._buffer) < whole:
            self._receive()
        self._buffer = self._buffer[whole:]
        return int(head.split(b" ", 2)[1])

    def _receive(self) -> None:
        piece = self._socket.recv(65536)
        if not piece:
            raise ConnectionError("the server hung up")
        self._buffer += piece


def get(path: str, key: str = "") -> bytes:
    """A whole GET request."""
    head = f"GET {path} HTTP/1.1\r\nHost: bench\r\n"
    return (head + (f"Authorization: Bearer {key}\r\n" if key else "") + "\r\n").encode()
