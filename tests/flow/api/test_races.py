"""Two api processes over one database are asked for the same at the same moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import Connection, text

from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.db import Database
from runtools.testing import api_world, postgres
from runtools.testing.api_world import HOST_ID, World, client, holds
from runtools.testing.tenancy.places import public_key

# On SQLite one thread of one process writes: nothing is side by side there.
pytestmark = pytest.mark.parametrize("any_url", postgres.ENGINES[1:], indirect=True)

# For the table, or for a row that who waits for the table has.
_WAITING = text(
    "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE NOT granted AND datname = current_database()"
)
_SECONDS = 60
# Which table is written, and by what; ``{}`` is what makes it another one.
CREATES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("api_keys", "/v1/api-keys", {"name": "k-{}"}),
    ("invitations", "/v1/invitations", {"email": "{}@example.org"}),
    ("model_endpoints", "/v1/model-endpoints", {"slug": "m-{}", "url": "https://1.1.1.1/v1"}),
    ("projects", "/v1/projects", {"name": "p-{}"}),
    ("sandboxes", "/v1/sandboxes", {"name": "box-{}"}),
    ("secrets", "/v1/secrets", {"name": "A_{}", "value": "1"}),
    ("ssh_keys", "/v1/ssh-keys", {"label": "{}", "publicKey": "{key}"}),
    ("template_versions", "/v1/templates/t-{}/builds", {"recipe": "base-debian"}),
    ("webhooks", "/v1/webhooks", {"url": "https://1.1.1.1/{}"}),
)
# What an org may have so many of, and where that is said.
LIMITED = {
    "model_endpoints": "runtools.platform.api.models.service.MOST",
    "ssh_keys": "runtools.platform.api.ssh_keys.store.MOST",
    "webhooks": "runtools.platform.api.webhooks.service.MOST",
}


@pytest_asyncio.fixture
async def beside(any_world: World, any_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another api process over the same database, with the same key."""
    hosts, settings = {HOST_ID: any_world.host}, any_world.platform.settings
    made = api_world.serving(Database(any_url), hosts, SystemClock(), settings)
    async with made as (url, _), client(url, any_world.key) as http:
        yield http


@asynccontextmanager
async def _held(any_url: str, table: str) -> AsyncIterator[Database]:
    """Nobody writes to the table while the body runs: who wants to waits."""
    db, held, let_go = Database(any_url), threading.Event(), threading.Event()

    def hold(conn: Connection) -> None:
        conn.execute(text(f"LOCK TABLE {table} IN EXCLUSIVE MODE"))
        held.set()
        assert let_go.wait(_SECONDS)

    holding = asyncio.create_task(db.write(hold))
    try:
        await holds(held.is_set)
        yield db
    finally:
        let_go.set()
        await asyncio.wait((holding,))
        await db.close()


async def _together(
    any_url: str, table: str, *asked: tuple[httpx.AsyncClient, str, Any, str]
) -> list[httpx.Response]:
    """What each is answered once all have come as far as the table, and none has written to it before."""
    async with _held(any_url, table) as db:
        answers = [
            asyncio.create_task(http.post(path, json=body, headers={"Idempotency-Key": key}))
            for http, path, body, key in asked
        ]

        async def waiting() -> bool:
            count = await db.read(lambda conn: conn.scalar(_WAITING))
            return int(count or 0) >= len(asked) or all(one.done() for one in answers)

        await holds(waiting)
    return await asyncio.gather(*answers)


async def test_one_act_is_done_once_and_another_of_the_same_name_is_refused(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    for table, path, said in CREATES:
        for first, second in (("same", "same"), ("one", "other")):
            named = {"key": public_key(first)}
            body = {name: value.format(first, **named) for name, value in said.items()}
            at = path.format(first)
            answers = await _together(
                any_url,
                table,
                (any_world.http, at, body, f"{table}-{first}"),
                (beside, at, body, f"{table}-{second}"),
            )
            codes = [answer.status_code for answer in answers]
            told = (table, first, [answer.text for answer in answers])
            assert 201 in codes, told
            assert set(codes) <= {201, 409}, told
            made = {one.json()["data"]["id"] for one in answers if one.status_code == 201}
            assert len(made) == 1 or first != second, told


async def test_two_at_once_do_not_exceed_what_an_org_may_have(
    any_world: World, beside: httpx.AsyncClient, any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table, path, said in CREATES:
        if table not in LIMITED:
            continue
        monkeypatch.setattr(LIMITED[table], 1)
        asked = []
        for http, name in ((any_world.http, "one"), (beside, "other")):
            key = public_key(name)
            body = {field: value.format(name, key=key) for field, value in said.items()}
            asked.append((http, path, body, f"{table}-{name}"))
        answers = await _together(any_url, table, *asked)
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [201, 409], (table, [answer.text for answer in answers])


async def test_of_two_links_that_reset_a_password_one_is_good(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    ann = await any_world.person()
    path = f"/v1/people/{ann.user_id}/reset"
    asked = [(http, path, None, str(n)) for n, http in enumerate((any_world.http, beside))]
    answers = await _together(any_url, "resets", *asked)
    assert [answer.status_code for answer in answers] == [201, 201]
    await ann.http.aclose()
    codes = [one.json()["data"]["link"].partition("#")[2] for one in answers]
    opened = []
    async with httpx.AsyncClient(base_url=any_world.url, trust_env=False) as http:
        for code in codes:
            form = {"code": code, "password": "another one of hers"}
            headers = {"Origin": any_world.url}
            opened.append((await http.post("/reset", data=form, headers=headers)).status_code)
    assert sorted(opened) == [200, 404]
