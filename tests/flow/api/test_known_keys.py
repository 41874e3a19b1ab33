"""Keys that a process believes: at no cost while none is revoked, and never beyond a second after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, delete, select, update

from runtools.errors import Unauthenticated
from runtools.platform.api.callers import known
from runtools.platform.api.callers.door import BELIEVED_SECONDS, Door
from runtools.platform.api.callers.known import KnownKeys
from runtools.platform.api.callers.parts import Parts
from runtools.platform.api.keys import store
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.schema import upgrade
from runtools.platform.kit import crypto
from runtools.platform.kit.db import Database
from runtools.testing.api_world import World, client
from runtools.testing.clock import ManualClock
from runtools.testing.revocations import Revocations


class Counted:
    """A database that tells what it was asked."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.asked: list[Any] = []

    async def read(self, ask: Callable[..., Any], *args: Any) -> Any:
        self.asked.append(ask)
        return await self._db.read(ask, *args)


class Beside:
    """Another process's doorkeeper over the same database, with a clock that the test moves."""

    def __init__(self, world: World) -> None:
        self.clock = ManualClock()
        self.db: Any = Counted(world.platform.db)
        self.door = Door(self.db, self.clock, world.platform.settings.session_idle, Parts([]))

    async def lets_in(self, secret: str) -> bool:
        try:
            await self.door.admit(secret)
        except Unauthenticated:
            return False
        return True


@pytest_asyncio.fixture
async def beside(any_world: World) -> AsyncIterator[Beside]:
    """Another process."""
    yield Beside(any_world)


async def key(world: World, by: Any = None, **body: Any) -> dict[str, Any]:
    """A new one."""
    answer = await (by or world.http).post("/v1/api-keys", json={"name": "k"} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()["data"]
    return made


async def _revoke(world: World, made: dict[str, Any]) -> None:
    answer = await world.http.delete(f"/v1/api-keys/{made['id']}?revokeMade=true")
    assert answer.status_code == 200, answer.text


class TestEnds:
    """Each way in which a key ends, seen from another process that has just let it in."""

    async def ends(self, beside: Beside, secrets: list[str], act: Any) -> None:
        for secret in secrets:
            assert await beside.lets_in(secret)
        answer = await act
        assert answer.status_code < 300, answer.text
        beside.clock.advance(BELIEVED_SECONDS + 0.01)
        for secret in secrets:
            assert not await beside.lets_in(secret)

    async def test_it_is_revoked(self, any_world: World, beside: Beside) -> None:
        made = await key(any_world)
        act = any_world.http.delete(f"/v1/api-keys/{made['id']}")
        await self.ends(beside, [made["key"]], act)

    async def test_it_is_revoked_with_what_it_made(self, any_world: World, beside: Beside) -> None:
        made = await key(any_world)
        async with client(any_world.url, made["key"]) as http:
            child = await key(any_world, http)
        act = any_world.http.delete(f"/v1/api-keys/{made['id']}?revokeMade=true")
        await self.ends(beside, [made["key"], child["key"]], act)

    async def test_another_takes_its_place(self, any_world: World, beside: Beside) -> None:
        made = await key(any_world)
        act = any_world.http.post(f"/v1/api-keys/{made['id']}/rotate")
        await self.ends(beside, [made["key"]], act)

    async def test_who_made_it_is_removed(self, any_world: World, beside: Beside) -> None:
        ann = await any_world.person("member")
        async with ann.http as http:
            made = await key(any_world, http, scopes=["sandbox:read"])
        act = any_world.http.delete(f"/v1/members/{ann.user_id}?revokeKeys=true")
        await self.ends(beside, [made["key"]], act)

    async def test_the_account_of_who_made_it_is_closed(
        self, any_world: World, beside: Beside
    ) -> None:
        ann = await any_world.person("member")
        async with ann.http as http:
            made = await key(any_world, http, scopes=["sandbox:read"])
        act = any_world.http.delete(f"/v1/people/{ann.user_id}?revokeKeys=true")
        await self.ends(beside, [made["key"]], act)

    async def test_who_made_it_is_no_operator_any_more(
        self, any_world: World, beside: Beside
    ) -> None:
        ann = await any_world.person("admin", operator=True)
        async with ann.http as http:
            made = await key(any_world, http, scopes=["platform:read"])
        body = {"operator": False, "revokeKeys": True}
        act = any_world.http.patch(f"/v1/people/{ann.user_id}", json=body)
        await self.ends(beside, [made["key"]], act)

    async def test_it_expires(self, any_world: World, beside: Beside) -> None:
        made = await key(any_world, expiresIn="1d")
        assert await beside.lets_in(made["key"])
        beside.clock.advance(86_401)
        assert not await beside.lets_in(made["key"])


class TestCost:
    async def test_none_is_asked_for_again_while_none_is_revoked(
        self, any_world: World, beside: Beside
    ) -> None:
        secrets = [(await key(any_world))["key"] for _ in range(3)]
        for _ in range(4):
            for secret in secrets:
                assert await beside.lets_in(secret)
            beside.clock.advance(BELIEVED_SECONDS + 0.01)
        assert beside.db.asked.count(store.caller) == 3
        assert beside.db.asked.count(store.revoked) == 4
        gone = await key(any_world)
        assert (await any_world.http.delete(f"/v1/api-keys/{gone['id']}")).status_code == 200
        for secret in secrets:
            assert await beside.lets_in(secret)
        assert beside.db.asked.count(store.caller) == 6

    async def test_one_that_ended_before_is_no_news(self, any_world: World) -> None:
        gone = await key(any_world)
        counts = []
        for _ in range(3):
            assert (await any_world.http.delete(f"/v1/api-keys/{gone['id']}")).status_code == 200
            counts.append(await any_world.platform.db.read(store.revoked))
        assert len(set(counts)) == 1

    async def test_those_used_last_are_kept(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(known, "MOST", 2)
        beside = Beside(world)
        first, second, third = [(await key(world))["key"] for _ in range(3)]
        for secret in (first, second, first, third, first):
            assert await beside.lets_in(secret)
        assert beside.db.asked.count(store.caller) == 3
        assert await beside.lets_in(second)
        assert beside.db.asked.count(store.caller) == 4


class TestRaces:
    async def test_what_was_read_before_a_revocation_is_not_believed_after(
        self, any_world: World
    ) -> None:
        """The look at the key began first and comes back last."""
        made = await key(any_world)
        digest, db = crypto.digest(made["key"]), any_world.platform.db
        clock, begun, gate = ManualClock(), asyncio.Event(), asyncio.Event()

        class Slow(Counted):
            async def read(self, ask: Callable[..., Any], *args: Any) -> Any:
                found = await super().read(ask, *args)
                if ask is store.caller and not begun.is_set():
                    begun.set()
                    await gate.wait()
                return found

        slow: Any = Slow(db)
        keys = KnownKeys(slow, clock, BELIEVED_SECONDS)
        reading = asyncio.create_task(keys.caller(digest))
        await begun.wait()
        await _revoke(any_world, made)
        clock.advance(BELIEVED_SECONDS)
        assert await keys.caller(digest) is None  # and it has seen the count
        gate.set()
        assert await reading is not None  # let in as of before
        assert await keys.caller(digest) is None

    async def test_many_end_at_once_and_wait_for_each_other_never(self, any_world: World) -> None:
        """Those that make each other's are ended from both sides: the count is nobody's to hold."""
        parents = [await key(any_world) for _ in range(4)]
        children = []
        for parent in parents:
            async with client(any_world.url, parent["key"]) as http:
                children.append(await key(any_world, http))
        before = await any_world.platform.db.read(store.revoked)
        await asyncio.gather(*(_revoke(any_world, one) for one in [*parents, *children]))
        after = await any_world.platform.db.read(store.revoked)
        assert 4 <= after - before <= 8
        listed = (await any_world.http.get("/v1/api-keys")).json()["data"]
        ended = {one["id"] for one in listed if one["revokedAt"] is not None}
        assert {one["id"] for one in [*parents, *children]} <= ended


class TestWatch:
    """What every test of the api is held to finds who ends keys and says nothing."""

    @pytest.mark.parametrize(
        ("change", "faults"),
        [
            ({"scopes": ["*"]}, 1),
            ({"expires_at": None}, 1),
            ({"revoked_at": None}, 1),
            ({"last_used_at": None}, 0),
            ({"project_id": None}, 0),
            (None, 1),
        ],
    )
    async def test_who_counts_nothing_is_found(
        self, any_url: str, change: dict[str, Any] | None, faults: int
    ) -> None:
        db, clock = Database(any_url), ManualClock()
        await upgrade(db)
        org, _ = await ensure_first(db, clock)
        watch = Revocations(db)

        def quiet(conn: Connection) -> None:
            if change is None:
                conn.execute(delete(store.api_keys))
            else:
                conn.execute(update(store.api_keys).values(change))

        def loud(conn: Connection) -> None:
            for one in list(conn.scalars(select(store.api_keys.c.id))):
                store.close(conn, org, one, clock.now())

        try:
            await db.write(loud)
            assert watch.faults == []
            await db.write(quiet)
            assert len(watch.faults) == faults
        finally:
            await db.close()
