"""Usage records: what sandboxes used, whatever is killed when."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from runtools.platform.api.hosts.follow import take_in
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.sandboxes.observe import observe
from runtools.platform.api.usage import service, store
from runtools.platform.api.usage.rules import DAY_MS, Move, running, within
from runtools.platform.api.usage.tables import days as days_table
from runtools.platform.api.usage.tables import moves, stored
from runtools.platform.api.usage_days import store as usage_days
from runtools.platform.core.ports.host import Observed, Stored
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import HOST_ID, World
from runtools.testing.made_once import sqlite_url

SIZE = {"vcpus": 2, "memoryMb": 512, "diskMb": 512}
FOREVER = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
ALWAYS = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


async def usage(world: World, query: str = FOREVER) -> list[dict[str, Any]]:
    answer = await world.http.get(f"/v1/usage?{query}")
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


async def whole(world: World, since: datetime, until: datetime, **more: str) -> int:
    query = {"from": since.isoformat(), "to": until.isoformat(), "group": "org"} | more
    answer = await world.http.get("/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    return sum(row["runningMs"] for row in answer.json()["data"])


def report(sandbox_id: str, seq: int, at: datetime, state: str, epoch: int = 50) -> Observed:
    return Observed(
        sandbox_id=sandbox_id,
        epoch=epoch,
        seq=seq,
        at=at,
        state=state,  # type: ignore[arg-type]
        operation=None,
        cause="request",
        actor="test",
    )


class TestRunning:
    async def test_a_life_is_counted_from_running_to_pause_and_end(self, any_world: World) -> None:
        made = await any_world.create(name="one", **SIZE)
        await any_world.http.post("/v1/sandboxes/one/pause")
        (asleep,) = await usage(any_world)
        assert asleep["sandboxId"] == made["id"]
        assert (asleep["name"], asleep["projectId"]) == ("one", made["projectId"])
        lines = await any_world.why("one")
        began = next(x for x in lines if (x["state"], x["operation"]) == ("running", None))
        ended = next(x for x in lines if x["state"] == "paused")
        ran = _millis(ended["at"]) - _millis(began["at"])
        assert asleep["runningMs"] == ran
        assert (asleep["vcpuMs"], asleep["memoryMbMs"]) == (2 * ran, 512 * ran)
        assert asleep["runningSeconds"] == ran / 1000
        assert (await usage(any_world))[0]["runningMs"] == ran
        await any_world.http.post("/v1/sandboxes/one/resume")
        await any_world.http.delete("/v1/sandboxes/one")
        (over,) = await usage(any_world)
        assert over["runningMs"] >= ran
        assert await usage(any_world) == [over]

    @pytest.mark.parametrize("seed", range(4))
    async def test_reports_late_lost_and_doubled_count_once(
        self, any_world: World, seed: int
    ) -> None:
        """The follower may lag behind direct answers, be killed anywhere, and read again."""
        chance = random.Random(seed)
        platform = any_world.platform
        made = await any_world.create()
        await any_world.http.delete(f"/v1/sandboxes/{made['id']}")
        base = (await usage(any_world))[0]["runningMs"]
        other = await any_world.create()
        await any_world.http.post(f"/v1/sandboxes/{other['id']}/pause")
        before = sum(row["runningMs"] for row in await usage(any_world))
        at = platform.clock.now() - timedelta(hours=5)
        reports, state, ran, clock = [], "paused", 0, at
        highest = clock
        first = await platform.db.read(store.moves_of, [other["id"]], ALWAYS)
        highest = max(highest, *(_moment(move.at) for move in first[other["id"]]))
        for seq in range(1, 40):
            # Sometimes the clock is put back; then no time passes until it has come so far again.
            clock += timedelta(milliseconds=chance.choice([1, 500, 7_000, -3_000]))
            came = max(highest, clock)
            ran += (_millis(came) - _millis(highest)) if state == "running" else 0
            highest = came
            state = chance.choice(["running", "paused"])
            reports.append(report(other["id"], seq, clock, state))
        reports.append(report(other["id"], 40, clock, "paused"))
        order = list(reports)
        while order:
            # A direct answer is taken in ahead of the follower; what was read is read again.
            if chance.random() < 0.3:
                await platform.db.write(observe, chance.choice(order))
            await take_in(platform, HOST_ID, order[0])
            if chance.random() < 0.3:
                continue
            order.pop(0)
        after = sum(row["runningMs"] for row in await usage(any_world))
        assert after - before == ran
        assert base >= 0

    async def test_any_partition_of_a_period_makes_the_whole(self, any_world: World) -> None:
        platform = any_world.platform
        chance = random.Random(7)
        now = platform.clock.now()
        start = now - timedelta(days=3)
        for _ in range(3):
            made = await any_world.create()
            await any_world.http.post(f"/v1/sandboxes/{made['id']}/pause")
            await any_world.http.post("/v1/projects", json={"name": f"p{chance.randrange(10**6)}"})
            at = start
            for seq in range(1, 12):
                at += timedelta(seconds=chance.uniform(-600, 20_000))
                state = chance.choice(["running", "paused"])
                await take_in(platform, HOST_ID, report(made["id"], seq, at, state))
            await take_in(platform, HOST_ID, report(made["id"], 12, at, "paused"))
        for _ in range(3):
            cuts = sorted(
                start + timedelta(milliseconds=chance.randrange(260_000_000)) for _ in range(6)
            )
            cuts = [_floor(start), *map(_floor, cuts), _floor(now)]
            sums = [await whole(any_world, a, b) for a, b in itertools.pairwise(cuts)]
            assert sum(sums) == await whole(any_world, cuts[0], cuts[-1])
        period = f"from={_iso(cuts[0])}&to={_iso(cuts[-1])}"
        total = await whole(any_world, cuts[0], cuts[-1])
        for group in ("sandbox", "project", "day"):
            rows = await usage(any_world, f"{period}&group={group}")
            assert sum(row["runningMs"] for row in rows) == total, group
        days = [row["day"] for row in await usage(any_world, f"{period}&group=day")]
        assert days == sorted(days)

    @pytest.mark.parametrize("seed", range(4))
    async def test_a_period_needs_but_its_own_moves(self, any_world: World, seed: int) -> None:
        """What is read for a period makes what all that ever happened makes, whatever the clocks said."""
        chance = random.Random(seed)
        read, write = any_world.platform.db.read, any_world.platform.db.write
        ref = (await any_world.create())["id"]
        start = _floor(any_world.platform.clock.now()) + timedelta(hours=1)
        known = (await read(store.moves_of, [ref], ALWAYS))[ref]
        at = start
        for seq in range(1, 60):
            at += timedelta(milliseconds=chance.choice([0, 1, 900, 4_000, -2_500]))
            state = chance.choice(["running", "paused"])
            if seq > 45 and seed % 2:
                state = chance.choice(["running", "stopped"])
            known.append(Move(_millis(at), state))
            await write(store.moved, ref, (50, seq), at, state)
        first, now = _millis(start), _millis(at) + chance.choice([-9_000, 0, 9_000])
        for _ in range(40):
            since, until = sorted(first + chance.randrange(-5_000, 60_000) for _ in range(2))
            period = _moment(since), _moment(until)
            told = (await read(store.moves_of, [ref], period))[ref]
            assert within(running(told, now), since, until) == within(
                running(known, now), since, until
            )
        later = at + timedelta(days=1), at + timedelta(days=2)
        assert len((await read(store.moves_of, [ref], later))[ref]) == 1

    async def test_each_day_has_what_it_has_alone(self, any_world: World) -> None:
        platform = any_world.platform
        chance = random.Random(11)
        today = platform.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        start = today + timedelta(days=1)
        for seed in range(2):
            made = await any_world.create()
            at, seen = start, start
            for seq in range(1, 20):
                at += timedelta(seconds=chance.uniform(-600, 40_000))
                seen += timedelta(seconds=chance.uniform(1, 40_000))
                state = chance.choice(["running", "paused"]) if seq < 19 else "paused"
                await take_in(platform, HOST_ID, report(made["id"], seq, at, state))
                await platform.db.write(store.seen, HOST_ID, {made["id"]: seq + seed}, seen)
        days = [start + timedelta(days=n) for n in range(-2, 9)]
        found = {
            row["day"]: row
            for row in await usage(any_world, f"from={_iso(days[0])}&to={_iso(days[-1])}&group=day")
        }
        for a, b in itertools.pairwise(days):
            alone = await usage(any_world, f"from={_iso(a)}&to={_iso(b)}&group=org")
            row = found.get(a.date().isoformat())
            for field in ("runningMs", "vcpuMs", "memoryMbMs", "storedMbMs"):
                assert (row[field] if row else 0) == sum(one[field] for one in alone), (a, field)
        assert any(row["runningMs"] for row in found.values())
        assert any(row["storedMbMs"] for row in found.values())

    async def test_an_end_that_the_platform_found_itself(self, any_world: World) -> None:
        made = await any_world.create()
        platform = any_world.platform
        from runtools.platform.api.sandboxes import observe as taking

        await platform.db.write(
            taking.end, made["id"], "host_restart", "gone", "platform", platform.clock.now()
        )
        (row,) = await usage(any_world)
        assert await usage(any_world) == [row]

    async def test_a_restarted_api_counts_on(self, tmp_path: Path) -> None:
        url = sqlite_url(tmp_path)
        async with api_world.world(Database(url), tmp_path) as world:
            made = await world.create()
            host, key = world.host, world.key
            (first,) = await usage(world)
            record = await world.platform.db.read(sandboxes.get, made["id"])
        assert record is not None
        from runtools.platform.kit.clock import SystemClock
        from runtools.platform.kit.config import Settings

        served = api_world.serving(
            Database(url), {HOST_ID: host}, SystemClock(), Settings(home=tmp_path)
        )
        async with served as (address, platform), api_world.client(address, key) as http:
            now = platform.clock.now()
            (second,) = (await http.get(f"/v1/usage?{FOREVER}")).json()["data"]
            assert record.started_at is not None
            lived = _millis(now) - _millis(record.started_at)
            assert first["runningMs"] <= second["runningMs"]
            assert abs(second["runningMs"] - lived) < 5_000


class TestStored:
    async def test_what_lies_on_the_disk_is_counted_between_looks(self, any_world: World) -> None:
        platform = any_world.platform
        made = await any_world.create()
        start = _floor(platform.clock.now() + timedelta(hours=1))
        hours = [start + timedelta(hours=n) for n in range(5)]
        for at, mb in zip(hours, (0, 100, 300, 300, 0), strict=True):
            await platform.db.write(store.seen, HOST_ID, {made["id"]: mb} if mb else {}, at)
        query = f"from={_iso(hours[0])}&to={_iso(hours[4])}"
        (row,) = await usage(any_world, query)
        assert row["storedMbMs"] == (100 + 300 + 300) * 3_600_000
        assert row["storedGbHours"] == pytest.approx(700 / 1024)
        parts = [
            sum(r["storedMbMs"] for r in await usage(any_world, f"from={_iso(a)}&to={_iso(b)}"))
            for a, b in itertools.pairwise(hours)
        ]
        assert parts == [0, 100 * 3_600_000, 300 * 3_600_000, 300 * 3_600_000]

    async def test_a_clock_that_was_put_back_counts_nothing_twice(self, any_world: World) -> None:
        platform = any_world.platform
        made = await any_world.create()
        start = _floor(platform.clock.now() + timedelta(hours=1))
        for minutes, mb in ((0, 10), (60, 20), (30, 30), (120, 0)):
            at = start + timedelta(minutes=minutes)
            await platform.db.write(store.seen, HOST_ID, {made["id"]: mb} if mb else {}, at)
        (row,) = await usage(any_world, f"from={_iso(start)}&to={_iso(start + timedelta(hours=3))}")
        assert row["storedMbMs"] == (10 + 30) * 3_600_000

    async def test_the_host_is_asked_and_an_end_ends_it(self, any_world: World) -> None:
        platform = any_world.platform
        made = await any_world.create()
        any_world.host.sizes[made["id"]] = 5 << 20
        await service.look(platform)
        await service.look(platform)
        (held,) = (await platform.db.read(store.stored_of, [made["id"]], ALWAYS, 10**15))[
            made["id"]
        ]
        assert (held.amount, held.until) == (5, 10**15)
        await any_world.http.delete(f"/v1/sandboxes/{made['id']}")
        (over,) = (await platform.db.read(store.stored_of, [made["id"]], ALWAYS, 10**15))[
            made["id"]
        ]
        assert over.until < 10**15
        # A look that began before the end and is written after it.
        await platform.db.write(
            store.seen, HOST_ID, {made["id"]: 5}, platform.clock.now() + timedelta(seconds=9)
        )
        assert (
            len((await platform.db.read(store.stored_of, [made["id"]], ALWAYS, 0))[made["id"]]) == 1
        )

    async def test_one_that_no_host_knows_is_passed_over(self, any_world: World) -> None:
        platform = any_world.platform
        any_world.host.sizes["sandbox-000000000000"] = 1 << 30
        await service.look(platform)
        any_world.host.unavailable = True
        await service.look(platform)
        assert Stored(sandbox_id="x", size_bytes=1).size_bytes == 1


class TestAddedUp:
    """What is long gone is kept by the day, and no sum is another one by that."""

    @pytest.mark.parametrize("seed", range(2))
    async def test_every_sum_of_whole_days_stays_and_parts_make_the_whole(
        self, any_world: World, seed: int
    ) -> None:
        chance, platform = random.Random(seed), any_world.platform
        midnight = _midnight(platform.clock.now()) - timedelta(days=6)
        await _lives(any_world, chance, midnight)
        days = [midnight + timedelta(days=n) for n in range(7)]
        asked = [
            f"from={_iso(a)}&to={_iso(b)}&group={group}"
            for a, b in itertools.combinations(days, 2)
            for group in ("sandbox", "project", "day", "org")
        ]
        before = [await usage(any_world, query) for query in asked]
        for cut in (days[2], days[4], days[4]):  # by and by, and once more for nothing
            await service.add_up(platform, cut)
            after = [await usage(any_world, query) for query in asked]
            assert [_used(rows) for rows in after] == [_used(rows) for rows in before]
        left = await platform.db.read(_counted)
        assert left["days"] > 0
        assert await platform.db.read(usage_days.old, days[2], "", 10) == []
        for _ in range(5):
            cuts = sorted(
                midnight + timedelta(milliseconds=chance.randrange(6 * DAY_MS)) for _ in range(5)
            )
            cuts = [days[0], *map(_floor, cuts), days[-1]]
            sums = [await whole(any_world, a, b) for a, b in itertools.pairwise(cuts)]
            assert sum(sums) == await whole(any_world, days[0], days[-1])

    async def test_little_is_left_of_much(self, any_world: World) -> None:
        platform, chance = any_world.platform, random.Random(1)
        midnight = _midnight(platform.clock.now()) - timedelta(days=6)
        await _lives(any_world, chance, midnight, count=60)
        before = await platform.db.read(_counted)
        await service.add_up(platform, midnight + timedelta(days=6))
        after = await platform.db.read(_counted)
        assert after["moves"] + after["stored"] < (before["moves"] + before["stored"]) / 4

    async def test_what_comes_too_late_changes_no_day_that_is_added_up(
        self, any_world: World
    ) -> None:
        platform = any_world.platform
        midnight = _midnight(platform.clock.now()) - timedelta(days=4)
        made = await any_world.create()
        await any_world.http.post(f"/v1/sandboxes/{made['id']}/pause")
        for seq, hours, state in ((1, 1, "running"), (2, 5, "paused")):
            at = midnight + timedelta(hours=hours)
            await take_in(platform, HOST_ID, report(made["id"], seq, at, state, epoch=0))
        period = midnight, midnight + timedelta(days=1)
        assert await whole(any_world, *period) == 4 * 3_600_000
        await service.add_up(platform, period[1])
        for seq, hours, state in ((1, 1, "running"), (0, 0, "running"), (2, 5, "paused")):
            at = midnight + timedelta(hours=hours)
            await take_in(platform, HOST_ID, report(made["id"], seq, at, state, epoch=0))
        assert await whole(any_world, *period) == 4 * 3_600_000

    async def test_one_that_runs_on_is_counted_on(self, any_world: World) -> None:
        platform = any_world.platform
        midnight = _midnight(platform.clock.now()) - timedelta(days=4)
        made = await any_world.create()
        await take_in(platform, HOST_ID, report(made["id"], 1, midnight, "running", epoch=0))
        await platform.db.write(store.seen, HOST_ID, {made["id"]: 7}, midnight)
        await service.add_up(platform, midnight + timedelta(days=2))
        at = midnight + timedelta(days=3)
        await take_in(platform, HOST_ID, report(made["id"], 2, at, "paused", epoch=0))
        await platform.db.write(store.seen, HOST_ID, {}, at)
        (row,) = await usage(any_world, f"from={_iso(midnight)}&to={_iso(at)}")
        assert (row["runningMs"], row["storedMbMs"]) == (3 * DAY_MS, 7 * 3 * DAY_MS)
        assert await whole(any_world, midnight, midnight + timedelta(hours=12)) == DAY_MS // 2

    async def test_nothing_is_half_added_up(
        self, any_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        platform = any_world.platform
        midnight = _midnight(platform.clock.now()) - timedelta(days=6)
        await _lives(any_world, random.Random(5), midnight)
        before = await usage(any_world)

        def cut_off(*_: object) -> None:
            raise RuntimeError("killed here")

        monkeypatch.setattr(usage_days, "_lay", cut_off)
        with pytest.raises(RuntimeError):
            await service.add_up(platform, midnight + timedelta(days=3))
        assert _used(await usage(any_world)) == _used(before)


async def _lives(world: World, chance: random.Random, start: datetime, count: int = 14) -> None:
    """Sandboxes with moves and sizes all over six days."""
    for _ in range(2):
        made = await world.create(**SIZE)
        await world.http.post(f"/v1/sandboxes/{made['id']}/pause")
        step = 6 * 86_400 / count
        at = looked = start
        for seq in range(1, count):
            at += timedelta(seconds=chance.uniform(-600, 1.9 * step))
            if at >= start + timedelta(days=6):
                break
            state = chance.choice(["running", "paused"])
            await take_in(world.platform, HOST_ID, report(made["id"], seq, at, state, epoch=0))
            looked += timedelta(seconds=chance.uniform(0, step))
            sizes = {made["id"]: chance.randrange(500)}
            await world.platform.db.write(store.seen, HOST_ID, sizes, looked)
        last = start + timedelta(days=6) - timedelta(seconds=1)
        await take_in(world.platform, HOST_ID, report(made["id"], count, last, "paused", epoch=0))
        await world.platform.db.write(store.seen, HOST_ID, {}, last)


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _used(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in which there is something."""
    return [row for row in rows if row["runningMs"] or row["storedMbMs"]]


def _counted(conn: Connection) -> dict[str, int]:
    tables = {"moves": moves, "stored": stored, "days": days_table}
    return {
        name: int(conn.scalar(select(func.count()).select_from(table)) or 0)
        for name, table in tables.items()
    }


class TestAsking:
    async def test_pages_and_projects(self, any_world: World) -> None:
        http = any_world.http
        await http.post("/v1/projects", json={"name": "web"})
        made = [await any_world.create(projectId="web") for _ in range(3)]
        await any_world.create()
        seen: list[str] = []
        cursor = ""
        while True:
            answer = await http.get(f"/v1/usage?{FOREVER}&projectId=web&limit=2{cursor}")
            seen += [row["sandboxId"] for row in answer.json()["data"]]
            more = answer.json()["meta"]["nextCursor"]
            if more is None:
                break
            cursor = f"&cursor={more}"
        assert seen == sorted(one["id"] for one in made)
        rows = await usage(any_world, f"{FOREVER}&group=project")
        assert len(rows) == 2

    async def test_another_org_has_its_own(self, any_world: World) -> None:
        await any_world.create()
        async with await any_world.stranger() as other:
            assert (await other.get(f"/v1/usage?{FOREVER}")).json()["data"] == []
            assert (await other.get(f"/v1/usage?{FOREVER}&group=org")).json()["data"] == []

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("from=yesterday", "from"),
            ("from=2026-01-01T00:00:00", "from"),
            ("from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
            ("from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z&group=day", "to"),
            ("from=0001-01-01T00:00:00%2B14:00", "from"),
            ("from=1999-12-31T23:59:59Z&to=2026-01-01T00:00:00Z", "from"),
            ("from=2026-01-01T00:00:00Z&to=9999-12-31T23:59:59-14:00", "to"),
            ("from=9999-12-31T23:00:00Z&to=9999-12-31T23:59:59Z&group=day", "from"),
            ("group=hour", "group"),
            ("cursor=x", "cursor"),
        ],
    )
    async def test_bad_input_names_its_field(self, world: World, query: str, field: str) -> None:
        answer = await world.http.get(f"/v1/usage?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["details"]["fields"][0]["field"] == field


def _millis(at: str | datetime) -> int:
    found = datetime.fromisoformat(at) if isinstance(at, str) else at
    return (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _moment(millis: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)


def _floor(at: datetime) -> datetime:
    return _moment(_millis(at))


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
