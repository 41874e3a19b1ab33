"""A database that goes away and comes back, or takes nothing more: a typed answer, and nothing lost."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from tests.flow.api.test_events import events

from runtools.platform.kit.db import Database
from runtools.testing import api_world, postgres
from runtools.testing.api_world import World, holds


async def _refused(world: World, method: str, path: str, **sent: object) -> None:
    answer = await world.http.request(method, path, **sent)  # type: ignore[arg-type]
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "unavailable"
    assert "postgres" not in answer.text.lower()


@pytest.mark.skipif(postgres.binaries() is None, reason="PostgreSQL is not installed")
async def test_postgresql_is_stopped_and_started_under_a_running_api(tmp_path: Path) -> None:
    with postgres.cluster() as server:
        url = server.url(server.create())
        async with api_world.world(Database(url), tmp_path) as world:
            one = (await world.create(name="one"))["id"]
            await world.http.get("/v1/me")  # the key is believed; so requests get to their routes
            async with world.http.stream("GET", "/v1/events?after=0") as stream:
                number, _, _ = await anext(events(stream))
                await asyncio.to_thread(server.stop)
                for method, path, sent in (
                    ("GET", "/v1/sandboxes", None),
                    ("GET", f"/v1/sandboxes/{one}", None),
                    ("POST", "/v1/sandboxes", {"name": "two"}),
                    ("POST", "/v1/secrets", {"name": "A", "value": "b"}),
                ):
                    await _refused(world, method, path, json=sent)
            # What happens on the host meanwhile is told when there is a database again.
            await world.host.die(one, "the machine ended")
            await asyncio.to_thread(server.start)

            async def back() -> bool:
                return (await world.http.get("/v1/sandboxes")).status_code == 200

            await holds(back)
            assert (await world.becomes(one, state="stopped"))["ending"]["reason"]
            assert (await world.create(name="two"))["state"] == "running"
            told = set()
            after = f"/v1/events?after={number}"
            async with asyncio.timeout(60), world.http.stream("GET", after) as stream:
                async for _, _, data in events(stream):
                    told.add((data["sandbox"]["name"], data["sandbox"]["state"]))
                    if told >= {("one", "stopped"), ("two", "running")}:
                        break


async def test_a_full_disk_is_said_and_nothing_half_written(world: World) -> None:
    def fill(conn: object) -> None:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar()  # type: ignore[attr-defined]
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # type: ignore[attr-defined]

    await world.platform.db.write(fill)
    statuses = []
    for number in range(200):
        body = {"name": f"S{number}", "value": "x" * 60_000}
        answer = await world.http.post("/v1/secrets", json=body)
        statuses.append(answer.status_code)
        if answer.status_code != 201:
            assert answer.json()["error"]["code"] == "unavailable"
            break
    assert statuses[-1] == 503
    listed = (await world.http.get("/v1/secrets?limit=100")).json()["data"]
    assert len(listed) in (
        len(statuses) - 1,
        len(statuses),
    )  # its audit line may be what was too much
    await world.platform.db.write(
        lambda conn: conn.exec_driver_sql("PRAGMA max_page_count=1073741823").scalar()
    )
    again = {"name": "AFTER", "value": "x"}
    assert (await world.http.post("/v1/secrets", json=again)).status_code == 201


async def test_a_database_that_another_process_has_locked_is_said_and_nothing_lost(
    world: World, tmp_path: Path
) -> None:
    await world.platform.db.write(lambda conn: conn.exec_driver_sql("PRAGMA busy_timeout=100"))
    one = (await world.create(name="one"))["id"]
    (file,) = tmp_path.rglob("runtools.db")
    other = sqlite3.connect(file, isolation_level=None)
    body, headers = {"name": "A", "value": "b"}, {"Idempotency-Key": "the-same"}
    try:
        other.execute("BEGIN IMMEDIATE")
        await _refused(world, "POST", "/v1/secrets", json=body, headers=headers)
        assert (await world.http.get(f"/v1/sandboxes/{one}")).status_code == 200  # reading goes on
        await world.host.die(one, "the machine ended")  # reported while nothing can be written
    finally:
        other.rollback()
        other.close()
    made = await world.http.post("/v1/secrets", json=body, headers=headers)
    assert (made.status_code, made.json()["data"]["version"]) == (201, 1)
    assert (await world.becomes(one, state="stopped"))["ending"]["reason"]


async def test_a_lock_that_is_short_is_waited_for(world: World, tmp_path: Path) -> None:
    (file,) = tmp_path.rglob("runtools.db")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asked = asyncio.create_task(world.http.post("/v1/secrets", json={"name": "A", "value": "b"}))
    done, _ = await asyncio.wait((asked,), timeout=0.3)
    assert not done
    other.rollback()
    other.close()
    assert (await asked).status_code == 201
