"""What the control plane costs, with 10,000 keys in use and 10,000 sandboxes, on SQLite and on PostgreSQL.

Each row stands beside a bare FastAPI route over the same database, which asks the same and writes the same
JSON and nothing else: no key, no rights, no sealing. A reveal is promised to leave a line in the audit log
before its value goes out; so its bare route writes one, too, in one transaction with the read, on a
connection that is as careful as ours. A further row says what that promise costs: the same beside a mere
read, without a bound. A key that a process does not know is looked up, and known until keys are revoked: so
each of them was asked with before it is measured, and the first request with each is a row without a bound.
Both are processes of their own and answer in turns over one kept connection. The api runs over a fake host:
no sandbox is started.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import count, cycle, repeat
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from sqlalchemy import Connection, MetaData, Table, create_engine, event, insert, select

from bench.api import Talk, get, per_second
from bench.section import Bench
from bench.table import Row, Series, at_most_floor_times, row
from runtools.platform.api.keys.store import Key, api_keys
from runtools.platform.api.sandboxes import store as boxes
from runtools.platform.api.sandboxes.tables import sandboxes
from runtools.platform.core.ids import new_id, new_sandbox_id
from runtools.platform.kit import crypto
from runtools.platform.kit.db import Database
from runtools.testing import api_world, postgres

MANY = 10_000
TURNS = 8


def measure(bench: Bench | None) -> Iterator[Row]:
    """Milliseconds a request, on both databases."""
    turns = TURNS // 2 if bench is not None and bench.quick else TURNS
    with tempfile.TemporaryDirectory(prefix="runtools-bench-", dir="/var/tmp") as folder:
        yield from _on("SQLite", f"sqlite:///{folder}/db/runtools.db", Path(folder), turns)
        with postgres.cluster() as server:
            url = server.url(server.create())
            yield from _on("PostgreSQL", url, Path(folder) / "pg", turns)


def _on(engine: str, url: str, folder: Path, turns: int) -> Iterator[Row]:
    with (
        _process(serve_platform, url, str(folder)) as told,
        _process(serve_bare, url, "") as bare,
    ):
        api, plain = Talk(told["url"]), Talk(bare["url"])
        for key in told["keys"]:
            api.ask(get(f"/v1/sandboxes/{told['sandbox']}", key))
        for title, ours, floor, limit in _asked(told):
            took, least = Series(), Series()
            for _ in range(turns):
                least.values.append(1000 / per_second(plain, repeat(floor)))
                took.values.append(1000 / per_second(api, ours))
            wanted = [] if limit is None else [at_most_floor_times(limit)]
            yield row(f"{engine}: {title}", took, least, wanted=wanted)


def _asked(told: dict[str, Any]) -> list[tuple[str, Iterator[bytes], bytes, float | None]]:
    """What is measured: the platform's requests, the bare one beside them, and the bound."""
    one, first, secret = told["sandbox"], told["keys"][0], told["secret"]
    name = f"/v1/sandboxes/{one}"
    every, fresh = (cycle([get(name, key) for key in told[which]]) for which in ("keys", "fresh"))
    shown, reveal = f"/v1/secrets/{secret}", post(f"/v1/secrets/{secret}/reveal", first)
    listed = get("/v1/sandboxes?limit=100", first)
    plain, told_of = get(f"/secret/{secret}"), post(f"/revealed/{secret}")
    row_of = get(f"/row/{one}")
    return [
        ("a request with one key", repeat(get(name, first)), row_of, 1.5),
        (f"a request with each of {MANY} keys", every, row_of, 1.5),
        ("a first request with each of as many others", fresh, row_of, None),
        ("a secret looked at", repeat(get(shown, first)), plain, 1.5),
        ("a secret revealed, beside a read with a line", repeat(reveal), told_of, 1.5),
        ("a secret revealed, beside a mere read", repeat(reveal), plain, None),
        (f"a page of 100 of {MANY} sandboxes", repeat(listed), get(f"/page/{told['org']}"), 2),
    ]


@contextmanager
def _process(serve: Any, *given: str) -> Iterator[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    ready: Any = spawn.Queue()
    server = spawn.Process(target=serve, args=(*given, ready), daemon=True)
    server.start()
    try:
        yield ready.get(timeout=240)
    finally:
        server.terminate()
        server.join()


def post(path: str, key: str = "") -> bytes:
    """A whole POST request without a body."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n"
    return (head + (f"Authorization: Bearer {key}\r\n" if key else "") + "\r\n").encode()


def serve_platform(url: str, folder: str, ready: Any) -> None:
    """The api over a fake host, with many keys and sandboxes; puts what is to be asked into the queue."""
    asyncio.run(_serve_platform(url, Path(folder), ready))


async def _serve_platform(url: str, folder: Path, ready: Any) -> None:
    async with api_world.world(Database(url), folder, checked=False) as world:
        made = await world.create(name="one", tags={"a": "b"})
        body = {"name": "BENCH", "value": "x" * 64}
        assert (await world.http.post("/v1/secrets", json=body)).status_code == 201
        secrets = [crypto.new_secret("rt_live_") for _ in range(2 * MANY)]
        await world.platform.db.write(_fill, world.org, made["id"], secrets)
        told = {
            "url": world.url,
            "org": world.org,
            "keys": secrets[:MANY],
            "fresh": secrets[MANY:],
            "sandbox": made["id"],
            "secret": "BENCH",
        }
        ready.put(told)
        await asyncio.Event().wait()


def _fill(conn: Connection, org: str, sandbox_id: str, secrets: list[str]) -> None:
    record = boxes.by_id(conn, org, sandbox_id)
    assert record is not None
    keys = [
        Key(
            new_id("key"),
            org,
            f"k{n}",
            secret[:14],
            crypto.digest(secret),
            new_id("opn"),
            record.created_at,
        )
        for n, secret in enumerate(secrets)
    ]
    conn.execute(insert(api_keys), [asdict(key) for key in keys])
    copies = [
        asdict(
            replace(
                record,
                id=new_sandbox_id(),
                name=f"copy-{n}",
                born_op=new_id("opn"),
                created_at=record.created_at - timedelta(seconds=n),
            )
        )
        for n in range(MANY)
    ]
    conn.execute(insert(sandboxes), copies)


def serve_bare(url: str, _folder: str, ready: Any) -> None:
    """The least that answers: the same questions to the same database, as JSON."""
    driver = url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(driver, isolation_level="AUTOCOMMIT")
    writer = create_engine(driver)
    if engine.dialect.name == "sqlite":
        event.listen(writer, "connect", lambda conn, _: conn.execute("PRAGMA synchronous=NORMAL"))
    meta = MetaData()
    with engine.connect() as conn:
        box = Table("sandboxes", meta, autoload_with=conn)
        secret = Table("secrets", meta, autoload_with=conn)
        audit = Table("audit", meta, autoload_with=conn)
    app, numbers = FastAPI(), count()

    def asked(query: Any) -> Response:
        with engine.connect() as conn:
            found = [dict(one) for one in conn.execute(query).mappings()]
        return Response(json.dumps(found), media_type="application/json")

    @app.get("/row/{sandbox_id}")
    def one(sandbox_id: str) -> Response:
        return asked(select(box).where(box.c.id == sandbox_id))

    @app.get("/secret/{name}")
    def sealed(name: str) -> Response:
        return asked(select(secret).where(secret.c.name == name))

    @app.post("/revealed/{name}")
    def revealed(name: str) -> Response:
        line = {
            "id": f"bare_{next(numbers)}",
            "at": 1,
            "actor": "bare",
            "action": "secrets.reveal",
            "resource": name,
            "status": 200,
            "request_id": "bare",
            "source": "bare",
        }
        with writer.begin() as conn:
            found = conn.execute(select(secret).where(secret.c.name == name)).mappings().one()
            conn.execute(insert(audit).values(**line))
        return Response(json.dumps(dict(found)), media_type="application/json")

    @app.get("/page/{org_id}")
    def page(org_id: str) -> Response:
        mine = select(box).where(box.c.org_id == org_id, box.c.state != "stopped")
        return asked(mine.order_by(box.c.created_at.desc(), box.c.id.desc()).limit(101))

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ready.put({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])
