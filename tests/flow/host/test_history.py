"""The hour of figures that a host keeps of each sandbox: true ones, and gaps that are stated."""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from runtools.platform.core.ports.network import Traffic
from runtools.platform.host.engine import history
from runtools.platform.host.engine.history import History

from .conftest import until

RUN = History.run


async def hour_of(world, box):
    return await world.host.stats_history(box)


@pytest.fixture
async def busy(world, box):
    """A sandbox that is looked at, works, and is looked at again."""
    await world.host.history.look()
    spin = "timeout 20 sh -c 'while :; do :; done' >/dev/null 2>&1 &"
    await world.sh(box, f"head -c 3000000 /dev/zero > /root/x; {spin}")
    await _other_place()
    await world.host.history.look()
    return box


async def _other_place() -> None:
    """Wait until the next point has a place of its own in the ring."""
    begun = time.time() // history.INTERVAL_SECONDS
    await until(lambda: time.time() // history.INTERVAL_SECONDS > begun, "the next place")


def _another_vmm(driver, monkeypatch):
    """From now on a machine counts anew, as after a resume; a local one keeps its processes."""
    begun, usage = time.monotonic(), driver.usage

    async def fresh(machine):
        told = await usage(machine)
        return replace(told, cpu_seconds=0.0, age_seconds=time.monotonic() - begun)

    monkeypatch.setattr(driver, "usage", fresh)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Places in the ring of a second, and nobody looks but the test."""
    monkeypatch.setattr(history, "INTERVAL_SECONDS", 1)
    monkeypatch.setattr(History, "run", lambda _: asyncio.Event().wait())


class TestPoints:
    async def test_they_tell_what_it_took(self, world, busy):
        hour = await hour_of(world, busy)
        assert len(hour.points) == 2
        before, after = hour.points
        assert 0 < (after.at - before.at).total_seconds() < 60
        assert after.cpu_percent > 0
        assert after.seconds == pytest.approx((after.at - before.at).total_seconds(), abs=0.1)
        assert after.memory_bytes > 1 << 20
        assert after.received_bytes == after.sent_bytes == 0
        assert hour.gaps == []

    async def test_what_came_and_what_went_is_told_apart(self, world, box, monkeypatch):
        counted = iter(
            [
                Traffic(received=1000, sent=200),
                Traffic(received=6000, sent=203),
                Traffic(received=6000, sent=900),
            ]
        )
        monkeypatch.setattr(world.network, "traffic", lambda _: next(counted))
        for _ in range(3):
            await world.host.history.look()
            await _other_place()
        flowed = [
            (one.received_bytes, one.sent_bytes) for one in (await hour_of(world, box)).points
        ]
        assert flowed == [(1000, 200), (5000, 3), (0, 697)]

    async def test_where_nobody_counts_it_is_not_known(self, world, box, monkeypatch):
        monkeypatch.setattr(world.network, "traffic", lambda _: None)
        await world.host.history.look()
        (point,) = (await hour_of(world, box)).points
        assert (point.received_bytes, point.sent_bytes) == (None, None)

    async def test_the_disk_is_what_its_file_takes(self, world, box):
        overlay = world.box(box).overlay
        await world.host.history.look()
        with overlay.open("ab") as file:
            file.write(os.urandom(3 << 20))
            os.fsync(file.fileno())
        await _other_place()
        await world.host.history.look()
        before, after = (await hour_of(world, box)).points
        grown = after.disk_bytes - before.disk_bytes
        assert 3 << 20 <= grown < 4 << 20

    async def test_what_the_guest_last_said_stands_beside(self, world, box):
        await world.host.history.look()
        await _other_place()
        said = await world.host.stats(box)
        await world.host.history.look()
        before, after = (await hour_of(world, box)).points
        assert before.guest_memory_used_bytes is None
        assert after.guest_memory_used_bytes == said.memory_used_bytes

    async def test_nobody_is_asked_or_woken(self, world, box):
        asked = []
        guest = world.box(box).guest
        guest.stats = guest.activity = lambda: asked.append(1)
        await world.host.history.look()
        await world.pause(box)
        await world.host.history.look()
        await hour_of(world, box)
        assert world.look(box).state == "paused"
        assert asked == []

    async def test_an_unknown_sandbox_has_none(self, world):
        with pytest.raises(Exception, match="knows no sandbox"):
            await hour_of(world, "sandbox-000000000999")


class TestGaps:
    async def test_a_pause_is_stated_while_it_lasts(self, world, busy):
        await world.pause(busy)
        hour = await hour_of(world, busy)
        assert [gap.reason for gap in hour.gaps] == ["paused"]
        assert hour.gaps[0].until == hour.until

    async def test_and_when_it_is_over(self, world, busy, monkeypatch):
        await world.pause(busy)
        await world.host.history.look()
        await world.resume(busy)
        _another_vmm(world.host.engine.driver, monkeypatch)
        await _other_place()
        await world.host.history.look()
        hour = await hour_of(world, busy)
        assert len(hour.points) == 3
        (gap,) = hour.gaps
        assert (gap.reason, gap.since) == ("paused", hour.points[1].at)
        assert gap.until == hour.points[2].at - timedelta(seconds=hour.points[2].seconds)
        assert all(0 <= point.cpu_percent < 1000 for point in hour.points)

    async def test_also_one_that_lies_between_two_looks(self, world, busy, monkeypatch):
        await world.pause(busy)
        await _other_place()
        await world.resume(busy)
        _another_vmm(world.host.engine.driver, monkeypatch)
        await _other_place()
        await world.host.history.look()
        hour = await hour_of(world, busy)
        (gap,) = hour.gaps
        assert (gap.reason, gap.since) == ("paused", hour.points[1].at)
        assert gap.until == hour.points[2].at - timedelta(seconds=hour.points[2].seconds)

    async def test_what_could_not_be_written_is_in_the_next_point(self, world, busy):
        file = world.box(busy).folder / history.FILE
        kept = file.rename(file.with_name("kept"))
        file.symlink_to("/nonexistent/history")
        await _other_place()
        await _other_place()
        await world.host.history.look()
        await _other_place()
        kept.rename(file)
        await world.host.history.look()
        hour = await hour_of(world, busy)
        _, before, after = hour.points
        assert after.seconds == pytest.approx((after.at - before.at).total_seconds(), abs=0.1)
        assert hour.gaps == []

    async def test_a_point_that_is_lost_is_a_gap(self, world, busy):
        await _other_place()
        await _other_place()  # longer than the watch may be late
        await world.host.history.look()
        await _other_place()
        await world.host.history.look()
        first, before, lost, last = (await hour_of(world, busy)).points
        file = world.box(busy).folder / history.FILE
        data = file.read_bytes()
        at = struct.pack("<d", lost.at.timestamp())[2:]  # it is told in microseconds
        assert data.count(at) == 1
        file.write_bytes(data.replace(at, bytes(len(at))))
        hour = await hour_of(world, busy)
        assert hour.points == [first, before, last]
        (gap,) = hour.gaps
        assert (gap.reason, gap.since) == ("not_watched", before.at)
        assert gap.until == last.at - timedelta(seconds=last.seconds)

    async def test_while_nobody_watched_nothing_is_made_up(self, world, busy):
        fresh = History(world.host.engine)
        await _other_place()
        await fresh.look()
        hour = await fresh.of(world.box(busy))
        assert [gap.reason for gap in hour.gaps] == ["not_watched"]
        assert hour.points[-1].cpu_percent is None
        assert hour.points[-1].received_bytes is None
        assert len(hour.points) == 3  # those of before are still there

    async def test_a_stopped_one_keeps_its_hour_until_its_disk_goes(self, world, busy):
        await world.host.engine.driver.kill(world.box(busy).machine())
        await until(lambda: world.look(busy).state == "stopped")
        hour = await hour_of(world, busy)
        assert len(hour.points) == 2
        assert hour.gaps[-1].reason == "stopped"
        await world.host.destroy(busy, "op_end", "key_test")
        assert (await hour_of(world, busy)).points == []


class TestTheRing:
    async def test_it_never_grows_and_old_points_go(self, world, box, monkeypatch):
        await world.host.history.look()
        file = world.box(box).folder / history.FILE
        assert file.stat().st_size <= history._SLOTS * history._RECORD
        monkeypatch.setattr(history, "KEPT_SECONDS", 0)
        assert (await hour_of(world, box)).points == []

    async def test_the_newest_point_takes_the_place_of_none_that_is_told(
        self, world, box, monkeypatch
    ):
        """The looks come a little late, and here pass the beginning of a place."""
        monkeypatch.setattr(history, "INTERVAL_SECONDS", 10)
        clock = world.host.engine.clock
        begun = clock.now().replace(minute=0, second=8, microsecond=750_000)
        file = world.box(box).folder / history.FILE
        for look in range(1, 400):
            at = begun.timestamp() + look * 10.03
            packed = history._POINT.pack(at, 10.03, 0, 0, 0, 0, 0, 0, 0, history._GOES_ON)
            assert history._write([history._Taken(box, file, at, packed, None)])
            if look > 370:
                now = begun + timedelta(seconds=look * 10.03 + 0.01)
                monkeypatch.setattr(clock, "now", lambda now=now: now)
                assert (await hour_of(world, box)).gaps == []

    async def test_torn_points_are_left_out(self, world, busy):
        file = world.box(busy).folder / history.FILE
        data = bytearray(file.read_bytes())
        data[-20] ^= 0xFF
        file.write_bytes(data)
        assert len((await hour_of(world, busy)).points) == 1

    async def test_a_file_that_cannot_be_written_hurts_nobody(self, world, box):
        (world.box(box).folder / history.FILE).symlink_to("/nonexistent/history")
        await world.host.history.look()
        assert world.look(box).state == "running"


async def test_a_look_that_fails_does_not_end_the_watch(world, monkeypatch):
    looks, seen = itertools.count(), asyncio.Event()

    async def look():
        if next(looks) == 0:
            raise RuntimeError("nobody foresaw it")
        seen.set()

    monkeypatch.setattr(world.host.history, "look", look)
    monkeypatch.setattr(history, "INTERVAL_SECONDS", 0)
    running = asyncio.ensure_future(RUN(world.host.history))
    await until(seen.is_set)
    running.cancel()
