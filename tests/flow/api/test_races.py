"""Two api processes over one database are asked for the same at the same moment."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import Connection, text

from runtools.errors import RunToolsError
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.leftovers import store as leftovers
from runtools.platform.api.leftovers.store import Leftover
from runtools.platform.api.templates import service as templates
from runtools.platform.api.templates.store import Version
from runtools.platform.api.vault.vault import Vault
from runtools.platform.core.ids import new_id
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.crypto import digest
from runtools.platform.kit.db import Database
from runtools.platform.kit.sealing import MasterKey
from runtools.testing import api_world, postgres
from runtools.testing.api_world import HOST_ID, World, client, holds
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import public_key, work

# On SQLite one thread of one process writes: nothing is side by side there.
pytestmark = pytest.mark.parametrize("any_url", postgres.ENGINES[1:], indirect=True)

T = TypeVar("T")

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
async def _held(any_url: str, doing: str) -> AsyncIterator[Database]:
    """A transaction has done that, and is not at its end before the body's."""
    db, held, let_go = Database(any_url), threading.Event(), threading.Event()

    def hold(conn: Connection) -> None:
        conn.execute(text(doing))
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


async def _at_once(any_url: str, table: str, *acts: Coroutine[Any, Any, T]) -> list[T]:
    """What each comes to once all have come as far as the table, and none has written to it before."""
    return await _while(any_url, f"LOCK TABLE {table} IN EXCLUSIVE MODE", *acts)


async def _while(any_url: str, doing: str, *acts: Coroutine[Any, Any, T]) -> list[T]:
    """What each comes to once all have met what another transaction is doing."""
    async with _held(any_url, doing) as db:
        tasks = [asyncio.create_task(act) for act in acts]

        async def waiting() -> bool:
            count = await db.read(lambda conn: conn.scalar(_WAITING))
            return int(count or 0) >= len(tasks) or all(one.done() for one in tasks)

        await holds(waiting)
    return await asyncio.gather(*tasks)


async def _together(
    any_url: str, table: str, *asked: tuple[httpx.AsyncClient, str, Any, str]
) -> list[httpx.Response]:
    """What each is answered."""
    acts = (
        http.post(path, json=body, headers={"Idempotency-Key": key})
        for http, path, body, key in asked
    )
    return await _at_once(any_url, table, *acts)


async def _count(world: World, table: str) -> int:
    query = text(f"SELECT count(*) FROM {table}")
    return int(await world.platform.db.read(lambda conn: conn.scalar(query)) or 0)


async def _twins(
    world: World,
    beside: httpx.AsyncClient,
    any_url: str,
    asked: tuple[str, str, str, Any],
    status: int = 201,
    rows: int = 1,
) -> None:
    """One request that two processes are given, and one of them once more: it is done once.

    Args:
        rows: how many it adds to the table.
    """
    table, method, path, body = asked
    headers, before = {"Idempotency-Key": new_id("opn")}, await _count(world, table)
    ask = [http.request(method, path, json=body, headers=headers) for http in (world.http, beside)]
    answers = await _at_once(any_url, table, *ask)
    answers.append(await beside.request(method, path, json=body, headers=headers))
    told = [answer.text for answer in answers]
    assert [answer.status_code for answer in answers] == [status] * 3, told
    whole = [answer.json()["data"] for answer in answers]
    ids = {data["id"] for one in whole for data in (one if isinstance(one, list) else [one])}
    assert len(ids) == 1, told
    assert await _count(world, table) - before == rows, told


async def test_one_act_is_done_once(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    """Nobody is refused, or asked to pay twice, for what its twin has done."""
    for table, path, said in CREATES:
        body = {name: value.format("same", key=public_key("same")) for name, value in said.items()}
        await _twins(any_world, beside, any_url, (table, "POST", path.format("same"), body))
    org = Org(any_world, any_world.org, "amber", any_world.http)
    box = f"/v1/sandboxes/{(await any_world.create())['id']}"
    await _twins(
        any_world, beside, any_url, ("snapshots", "POST", f"{box}/snapshots", {"name": "s"})
    )
    asked = await work(org, {})
    await _twins(any_world, beside, any_url, ("runs", "POST", "/v1/run?waitSeconds=0", asked), 202)


async def test_what_a_run_leaves_waits_for_nobody_who_holds_its_sandbox(
    any_world: World, any_url: str
) -> None:
    """It is noted under the lock of the run; who takes a run holds the sandbox before it."""
    left = Leftover((await any_world.create())["id"], "cmd", any_world.org, "run_1")
    holding = f"SELECT id FROM sandboxes WHERE id = '{left.sandbox_id}' FOR UPDATE"
    async with _held(any_url, holding):
        await asyncio.wait_for(any_world.platform.db.write(leftovers.note, left), _SECONDS / 4)


async def test_of_two_links_made_at_once_the_one_that_is_told_opens(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    """The other is told to ask again, and has another in its place when it does."""
    box = (await any_world.create())["id"]
    bob = await any_world.person("member")
    await bob.http.aclose()
    asked = (
        ("dev_url_links", f"/v1/sandboxes/{box}/urls/3000/links", "url"),
        ("resets", f"/v1/members/{bob.user_id}/reset", "link"),
    )
    for table, path, name in asked:
        ask = partial(_link, path, name, f"SELECT digest FROM {table}", any_world)
        first = await _at_once(any_url, table, ask(any_world.http), ask(beside))
        assert sorted(first) == ["opens", "unavailable"]
        assert await ask(beside) == "opens"


async def _link(path: str, name: str, opening: str, world: World, http: httpx.AsyncClient) -> str:
    """What becomes of a request for a link: an error's code, or whether what it is told opens anything."""
    answer = await http.post(path, json={}, headers={"Idempotency-Key": path[-20:]})
    if not answer.is_success:
        return str(answer.json()["error"]["code"])
    secret = re.split("[=#]", answer.json()["data"][name])[-1]
    found = await world.platform.db.read(lambda conn: conn.scalars(text(opening)).all())
    return "opens" if list(found) == [digest(secret)] else "opens nothing"


async def test_a_deploy_is_begun_once(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    agent = {"slug": "hello", "name": "Hello", "model": "demo"}
    for project in ("default", "new"):
        body = {"project": project, "agents": [agent]}
        plan = (await beside.post("/v1/deploys/plan", json=body)).json()["data"]["digest"]
        asked = ("deploys", "POST", "/v1/deploys", {**body, "plan": plan})
        await _twins(any_world, beside, any_url, asked)


async def test_what_its_twin_takes_up_of_a_quota_refuses_nobody(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    path = f"/v1/orgs/{any_world.org}/limits"
    assert (await any_world.http.patch(path, json={"sandboxes": 1})).status_code == 200
    await _twins(any_world, beside, any_url, ("sandboxes", "POST", "/v1/sandboxes", {}))


async def test_what_is_taken_away_is_taken_away_once(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    await any_world.http.post("/v1/secrets", json={"name": "A", "value": "1"})
    await _twins(any_world, beside, any_url, ("secrets", "DELETE", "/v1/secrets/A", None), 200, -1)
    # Of these the record stays.
    box = f"/v1/sandboxes/{(await any_world.create())['id']}/snapshots"
    await any_world.http.post(box, json={"name": "s"})
    await _twins(any_world, beside, any_url, ("snapshots", "DELETE", f"{box}/s", None), 200, 0)
    await _template(any_world)
    asked = ("template_versions", "DELETE", "/v1/templates/mine", None)
    await _twins(any_world, beside, any_url, asked, 200, 0)


async def _template(world: World) -> None:
    """One that is built."""
    path = "/v1/templates/mine"
    made = await world.http.post(f"{path}/builds", json={"recipe": "base-debian"})
    assert made.status_code == 201, made.text

    async def ready() -> bool:
        answer = await world.http.get(f"{path}/versions")
        return bool(answer.json()["data"][0]["state"] == "ready")

    await holds(ready)


async def test_a_template_that_goes_is_not_said_to_be_unknown(
    any_world: World, beside: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its twin has begun to take it away since this one looked whether it has."""
    await _template(any_world)
    twin: list[asyncio.Task[httpx.Response]] = []
    at_host, look, drop = asyncio.Event(), templates.versions, any_world.host.drop_template
    both = asyncio.Event()

    async def asked() -> httpx.Response:
        headers = {"Idempotency-Key": "k"}
        return await beside.delete("/v1/templates/mine", headers=headers)

    async def versions(*args: Any, **how: Any) -> list[Version]:
        if not twin:
            twin.append(asyncio.create_task(asked()))
            await asyncio.wait_for(at_host.wait(), _SECONDS)
        return await look(*args, **how)

    async def drop_template(version_id: str) -> None:
        if at_host.is_set():
            both.set()
        at_host.set()
        await asyncio.wait_for(both.wait(), _SECONDS)
        await drop(version_id)

    monkeypatch.setattr(templates, "versions", versions)
    monkeypatch.setattr(any_world.host, "drop_template", drop_template)
    headers = {"Idempotency-Key": "k"}
    first = await any_world.http.delete("/v1/templates/mine", headers=headers)
    both.set()
    answers = [first, *await asyncio.gather(*twin)]
    assert [one.status_code for one in answers] == [200, 200], first.text
    assert len({one.text.partition("meta")[0] for one in answers}) == 1


async def test_a_project_renamed_beside_a_deploy_is_not_deployed_into(
    any_world: World, any_url: str
) -> None:
    """What was confirmed is for the project of that name: the other is none any more."""
    await any_world.http.post("/v1/projects", json={"name": "web"})
    body = {"project": "web", "agents": [{"slug": "hello", "name": "Hello", "model": "demo"}]}
    plan = (await any_world.http.post("/v1/deploys/plan", json=body)).json()["data"]["digest"]
    rename = "UPDATE projects SET name = 'other' WHERE name = 'web'"
    deploy = any_world.http.post("/v1/deploys", json={**body, "plan": plan})
    (answer,) = await _while(any_url, rename, deploy)
    assert answer.status_code == 201, answer.text
    stands = "SELECT name FROM projects JOIN deploys ON deploys.project_id = projects.id"
    names = await any_world.platform.db.read(lambda conn: conn.scalars(text(stands)).all())
    assert names == ["web"]


async def test_a_value_is_set_once(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    """The second of two would bring an old value back, if it came after a newer one."""
    body, headers = {"name": "A", "value": "1"}, {"Idempotency-Key": "k"}
    await any_world.http.post("/v1/secrets", json=body)
    acts = [
        http.patch("/v1/secrets/A", json={"value": "2"}, headers=headers)
        for http in (any_world.http, beside)
    ]
    answers = await _at_once(any_url, "secrets", *acts)
    assert [one.json()["data"]["version"] for one in answers] == [2, 2]
    assert {one.headers.get("idempotency-replayed") for one in answers} == {None, "true"}


async def test_of_two_platforms_that_start_together_one_makes_what_they_begin_with(
    any_url: str,
) -> None:
    clock = SystemClock()
    async with AsyncExitStack() as open_:
        dbs = [Database(any_url), Database(any_url)]
        for db in dbs:
            open_.push_async_callback(db.close)
        firsts = await _at_once(any_url, "orgs", *(ensure_first(db, clock) for db in dbs))
        assert len({org for org, _ in firsts}) == 1
        assert sorted(secret is None for _, secret in firsts) == [False, True]
        # Each with a key of its own: the one that comes second is told that it is not the database's.
        vaults = [Vault(partial(list, [MasterKey.new()])) for _ in dbs]
        begun = [
            _began(vault.ready(db, clock.now())) for vault, db in zip(vaults, dbs, strict=True)
        ]
        assert sorted(await _at_once(any_url, "master_keys", *begun)) == ["", "wrong_master_key"]


async def _began(starting: Coroutine[Any, Any, None]) -> str:
    try:
        await starting
    except RunToolsError as error:
        return error.code
    return ""


async def test_another_of_the_same_name_is_refused(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    for table, path, said in CREATES:
        body = {name: value.format("one", key=public_key("one")) for name, value in said.items()}
        at, keys = path.format("one"), (f"{table}-one", f"{table}-other")
        asked = [
            (http, at, body, key) for http, key in zip((any_world.http, beside), keys, strict=True)
        ]
        answers = await _together(any_url, table, *asked)
        codes = [answer.status_code for answer in answers]
        told = (table, [answer.text for answer in answers])
        assert 201 in codes, told
        assert set(codes) <= {201, 409}, told


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


async def test_of_two_links_that_reset_a_password_the_one_that_is_told_is_good(
    any_world: World, beside: httpx.AsyncClient, any_url: str
) -> None:
    """Whoever asked for the other, under a key of its own, is told so; no client asks again."""
    ann = await any_world.person()
    path = f"/v1/people/{ann.user_id}/reset"
    asked = [(http, path, None, str(n)) for n, http in enumerate((any_world.http, beside))]
    answers = await _together(any_url, "resets", *asked)
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    await ann.http.aclose()
    (made,) = (answer for answer in answers if answer.is_success)
    async with httpx.AsyncClient(base_url=any_world.url, trust_env=False) as http:
        code = made.json()["data"]["link"].partition("#")[2]
        form = {"code": code, "password": "another one of hers"}
        answer = await http.post("/reset", data=form, headers={"Origin": any_world.url})
        assert answer.status_code == 200
