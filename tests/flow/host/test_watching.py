"""What the host does by itself: queue, pause what is idle, keep the disk from filling, sweep."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
from datetime import timedelta
from functools import partial

import pytest
from tests.flow.host.conftest import DEADLINE, World, holders, order, until
from tests.flow.host.test_lifecycle import kill_machine

from runtools.errors import CapacityExhausted
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.core.ports.host import Sizes
from runtools.platform.host.engine import idle, ledger
from runtools.platform.host.engine import space as space_of_host
from runtools.platform.host.engine.acts import queued
from runtools.platform.host.engine.budget import load_of
from runtools.platform.host.guest.client import Activity, GuestClient
from runtools.testing.clock import ManualClock

STILL = Activity(
    running_execs=0,
    output_bytes=10,
    connections=0,
    traffic_bytes=0,
    cpu_busy_seconds=0.0,
    cpu_total_seconds=0.0,
)


@pytest.fixture
async def small_world(settings):
    """A host with room for one running sandbox."""
    made = World(dataclasses.replace(settings, max_sandboxes=1))
    await made.host.start()
    yield made
    await made.close()


async def low(_):
    return True


class TestQueue:
    async def test_a_create_beyond_the_room_waits_with_its_place_and_then_runs(self, small_world):
        first = await small_world.create()
        waiting = await small_world.host.create(order())
        assert (waiting.state, waiting.operation) == ("creating", "queued")
        assert waiting.queue.position == 1
        assert waiting.queue.estimated_wait_seconds is None  # nobody has come and gone yet
        assert (await small_world.host.view()).queued == 1
        await small_world.destroy(first)
        settled = await small_world.host.settled(waiting.sandbox_id, 30)
        assert settled.state == "running"
        assert settled.timings.queue_ms > 0

    async def test_it_is_refused_where_waiting_is_not_wanted(self, small_world):
        await small_world.create()
        wish = order(queue=False)
        with pytest.raises(CapacityExhausted) as refused:
            await small_world.host.create(wish)
        assert refused.value.details == {"what": "sandboxes", "asked": 1, "free": 0}
        assert not small_world.folder(wish.sandbox_id).exists()

    async def test_what_can_never_fit_is_refused_at_once(self, world):
        huge = order(sizes=Sizes(vcpus=1, memory_mb=500_000, disk_mb=2048))
        with pytest.raises(CapacityExhausted):
            await world.host.create(huge)

    async def test_a_paused_sandbox_needs_room_to_go_on(self, small_world):
        slept = await small_world.create()
        await small_world.pause(slept)
        ran = await small_world.create()
        waking = asyncio.ensure_future(small_world.sh(slept, "echo back"))
        await until(lambda: small_world.look(slept).operation == "queued")
        await small_world.pause(ran)
        assert await waking == "back"

    async def test_a_command_waits_with_it_for_a_while_and_is_told_where_it_stands(
        self, small_world, monkeypatch
    ):
        monkeypatch.setattr(queued, "PATIENCE_SECONDS", 0.05)
        monkeypatch.setattr(queued, "_LOOK_SECONDS", 0.05)
        slept = await small_world.create()
        await small_world.pause(slept)
        ran = await small_world.create()
        fresh = (await small_world.host.create(order())).sandbox_id
        for place, box in enumerate((fresh, slept), start=1):
            async with asyncio.timeout(DEADLINE):
                with pytest.raises(CapacityExhausted, match=f"at place {place} of its queue"):
                    await small_world.sh(box, "true")
        # Both wait on: only the callers were told.
        await small_world.destroy(ran)
        await until(lambda: small_world.look(fresh).state == "running")
        await small_world.destroy(fresh)
        assert await small_world.sh(slept, "echo back") == "back"

    async def test_one_that_waits_can_be_destroyed(self, small_world):
        await small_world.create()
        waiting = await small_world.host.create(order())
        assert (await small_world.destroy(waiting.sandbox_id)).state == "stopped"
        assert (await small_world.host.view()).queued == 0

    async def test_one_that_waits_waits_on_after_a_restart(self, small_world):
        first = await small_world.create()
        waiting = (await small_world.host.create(order())).sandbox_id
        await small_world.host.stop()
        small_world.__init__(small_world.settings)
        await small_world.host.start()
        await until(lambda: small_world.look(waiting).operation == "queued")
        await small_world.destroy(first)
        assert (await small_world.host.settled(waiting, 30)).state == "running"

    async def test_children_that_do_not_fit_are_refused_before_anything_is_made(self, small_world):
        parent = await small_world.create()
        with pytest.raises(CapacityExhausted):
            await small_world.fork(parent)
        assert list(small_world.engine.actors) == [parent]
        assert small_world.look(parent).operation is None


class TestIdle:
    @pytest.fixture
    def seen(self, monkeypatch):
        """What guests say of their activity; a test changes it."""
        said = {"activity": STILL}

        async def activity(self):
            if isinstance(said["activity"], Exception):
                raise said["activity"]
            return said["activity"]

        monkeypatch.setattr(GuestClient, "activity", activity)
        return said

    @pytest.fixture
    async def clock(self):
        return ManualClock()

    @pytest.fixture
    async def world(self, settings, clock, seen):
        made = World(settings, clock)
        await made.host.start()
        yield made
        await made.close()

    async def look_after(self, world, clock, seconds):
        clock.advance(seconds)
        await world.host.idle.look()

    async def test_what_nobody_uses_is_paused_and_the_ledger_says_so(self, world, clock, box):
        await self.look_after(world, clock, 599)
        assert world.look(box).state == "running"
        await self.look_after(world, clock, 1)
        assert world.look(box).state == "paused"
        last = ledger.read(world.folder(box))[-1]
        assert (last.cause, last.actor) == ("idle", "platform")

    async def test_guests_that_say_nothing_hold_up_nobody(self, world, clock, monkeypatch, caplog):
        silent, asked, over = await world.create(), [], asyncio.Event()
        old = await world.create(idle_timeout_seconds=0, max_lifetime_seconds=60)
        mute = world.box(silent).guest

        async def activity(guest):
            if guest is mute:
                asked.append(guest)
                await over.wait()
                raise TimeoutError
            return STILL

        monkeypatch.setattr(GuestClient, "activity", activity)
        # A lifetime is over while another guest is asked and keeps everybody waiting.
        clock.advance(60)
        first = asyncio.ensure_future(world.host.idle.look())
        await until(lambda: world.look(old).state == "paused")
        assert not first.done()
        # Who looks meanwhile does not ask again.
        await world.host.idle.look()
        over.set()
        await first
        assert len(asked) == 1
        assert "says nothing, so it counts as idle" in caplog.text
        # It is left alone for a while, longer each time …
        for passed, times in ((10, 1), (15, 2), (25, 2), (25, 3)):
            await self.look_after(world, clock, passed)
            assert len(asked) == times
        # … and not kept running for it.
        await self.look_after(world, clock, 600)
        assert world.look(silent).state == "paused"
        assert "paused as idle though its guest agent says nothing" in caplog.text

    async def test_zero_is_never(self, world, clock):
        box = await world.create(idle_timeout_seconds=0)
        await self.look_after(world, clock, 1e6)
        assert world.look(box).state == "running"

    @pytest.mark.parametrize(
        "change",
        [
            {"running_execs": 1},
            {"output_bytes": 11},
            {"connections": 1, "traffic_bytes": 5},
            {"connections": 1, "traffic_bytes": None},
            {"cpu_busy_seconds": 2.6, "cpu_total_seconds": 100.0},  # of two vCPUs
        ],
    )
    async def test_signs_of_life_keep_it_running(self, world, clock, box, seen, change):
        await self.look_after(world, clock, 10)
        seen["activity"] = dataclasses.replace(STILL, **change)
        await self.look_after(world, clock, 595)
        assert world.look(box).state == "running"

    @pytest.mark.parametrize(
        "change",
        [
            {},
            {"connections": 1},
            {"traffic_bytes": 5},
            {"cpu_busy_seconds": 2.4, "cpu_total_seconds": 100.0},
        ],
    )
    async def test_these_are_none(self, world, clock, box, seen, change):
        await self.look_after(world, clock, 10)
        seen["activity"] = dataclasses.replace(STILL, **change)
        await self.look_after(world, clock, 595)
        assert world.look(box).state == "paused"

    async def test_one_thread_at_work_counts_in_the_largest_sandbox(self, world, clock, seen):
        box = await world.create(sizes=Sizes(vcpus=32, memory_mb=1024, disk_mb=2048))
        await self.look_after(world, clock, 10)
        work = {"cpu_busy_seconds": 595.0, "cpu_total_seconds": 32 * 595.0}
        seen["activity"] = dataclasses.replace(STILL, **work)
        await self.look_after(world, clock, 595)
        assert world.look(box).state == "running"

    async def test_a_call_of_ours_keeps_it_running(self, world, clock, box):
        with world.box(box).use():
            await self.look_after(world, clock, 1e4)
        await self.look_after(world, clock, 599)
        assert world.look(box).state == "running"

    async def test_it_is_not_paused_before_there_are_two_looks_to_compare(self, world, clock):
        box = await world.create(idle_timeout_seconds=5)
        await self.look_after(world, clock, 6)
        assert world.look(box).state == "running"
        await self.look_after(world, clock, 1)
        assert world.look(box).state == "paused"

    async def test_a_guest_that_does_not_answer_is_not_kept_running_for_it(
        self, world, clock, box, seen
    ):
        seen["activity"] = TimeoutError()
        await self.look_after(world, clock, 600)
        assert world.look(box).state == "paused"

    async def test_a_lifetime_ends_in_a_pause(self, world, clock):
        box = await world.create(idle_timeout_seconds=0, max_lifetime_seconds=100)
        await self.look_after(world, clock, 99)
        assert world.look(box).state == "running"
        await self.look_after(world, clock, 1)
        await until(lambda: world.look(box).state == "paused")
        assert world.look(box).cause == "lifetime"

    async def test_a_long_pause_gives_the_network_back(self, world, clock, box):
        await world.pause(box)
        await self.look_after(world, clock, idle.NETWORK_SECONDS - 1)
        assert len(world.network.taken) == 1
        await self.look_after(world, clock, 1)
        await until(lambda: not world.network.taken, "the release")

    async def test_it_looks_by_itself(self, world, clock, box):
        def is_paused():
            clock.advance(600)
            return world.look(box).state == "paused"

        await until(is_paused)


async def note(ran, name):
    ran.append(name)


class TestDisk:
    @pytest.fixture
    def full(self, world, monkeypatch):
        """Fill the disk, as far as the host can see."""
        real = type(world.host.space).free_bytes

        def fill(full=True):
            free = property(lambda self: 0) if full else real
            monkeypatch.setattr(type(world.host.space), "free_bytes", free)

        return fill

    async def test_before_it_is_full_what_runs_is_paused(self, world, box, full):
        full()
        await world.host.space.look()
        await until(lambda: world.look(box).state == "paused")
        assert world.look(box).cause == "disk_low"

    async def test_a_build_gives_way_first_while_the_headroom_is_there(
        self, world, box, full, monkeypatch
    ):
        builds = [True, True, False]
        monkeypatch.setattr(world.engine.templates, "give_way", lambda: builds.pop(0))
        monkeypatch.setattr(type(world.host.space), "_is_low", low)
        await world.host.space.look()
        assert (builds, world.host.space._pausing) == ([True, False], set())
        full()  # less than the headroom: there is no time to lose
        await world.host.space.look()
        await until(lambda: world.look(box).state == "paused")
        assert builds == [False]

    async def test_a_build_gives_way_where_nothing_runs_too(self, world, box, full, monkeypatch):
        """The platform's own files lie on that disk, and whoever wants to run waits for it."""
        asked = []
        monkeypatch.setattr(world.engine.templates, "give_way", lambda: asked.append(1))
        await world.pause(box)
        await world.host.space.look()
        assert not asked
        full()
        await world.host.space.look()
        assert asked

    async def test_one_that_cannot_be_paused_does_not_keep_the_others_from_it(
        self, world, box, full, monkeypatch
    ):
        other = await world.create()
        suspend = world.driver.suspend

        async def fail(machine):
            if machine.id == box:
                raise VmmFailed("no space")
            await suspend(machine)

        monkeypatch.setattr(world.driver, "suspend", fail)
        full()
        await world.host.space.look()
        await until(lambda: world.look(other).state == "paused")
        assert world.look(box).state == "running"

    async def test_one_that_is_busy_does_not_either_and_is_paused_before_what_waits(
        self, world, box, full
    ):
        other = await world.create()
        over, seen = asyncio.Event(), []

        async def see():
            seen.append(world.look(box).state)

        acts = [asyncio.ensure_future(world.box(box).perform(act)) for act in (over.wait, see)]
        await until(lambda: world.box(box).turns.current and world.box(box).turns.waiting)
        full()
        await world.host.space.look()
        await until(lambda: world.look(other).state == "paused")
        assert world.look(box).state == "running"
        over.set()
        await asyncio.gather(*acts)
        assert seen == ["paused"]
        assert world.look(box).cause == "disk_low"

    async def test_all_that_run_are_paused_after_one_look_four_at_a_time(
        self, world, full, monkeypatch
    ):
        boxes, suspend = [await world.create() for _ in range(7)], world.driver.suspend
        at_once, most, go = [], [], asyncio.Event()

        async def count(machine):
            at_once.append(machine.id)
            most.append(len(at_once))
            await go.wait()
            await suspend(machine)
            at_once.remove(machine.id)

        monkeypatch.setattr(world.driver, "suspend", count)
        full()
        await world.host.space.look()
        await until(lambda: len(at_once) == 4)
        # What waits for its place does not wait in its sandbox's turn: that is free for other acts.
        waiting = next(box for box in boxes if box not in at_once)
        async with asyncio.timeout(DEADLINE):
            await world.box(waiting).perform(partial(note, [], "act"))
        go.set()
        await until(lambda: all(world.look(box).state == "paused" for box in boxes))
        assert max(most) == 4

    async def test_those_that_are_busy_keep_no_place(self, world, full, monkeypatch):
        monkeypatch.setattr(space_of_host, "_BUSY_SECONDS", 0.05)
        busy, over = [await world.create() for _ in range(4)], asyncio.Event()
        acts = [asyncio.ensure_future(world.box(box).perform(over.wait)) for box in busy]
        await until(lambda: all(world.box(box).turns.current for box in busy))
        # Used last, and so paused last.
        free = await world.create()
        full()
        await world.host.space.look()
        await until(lambda: world.look(free).state == "paused")
        over.set()
        await asyncio.gather(*acts)
        await until(lambda: all(world.look(box).state == "paused" for box in busy))

    async def test_no_more_are_paused_than_it_takes(self, world, monkeypatch):
        """Each is counted 512 MB; there is room for what three of four must still write."""
        boxes, suspend, over = [await world.create() for _ in range(4)], world.driver.suspend, []
        free = property(lambda self: (1 + 3 * 512) << 20)

        async def slowly(machine):
            await until(lambda: over)
            await suspend(machine)

        monkeypatch.setattr(world.driver, "suspend", slowly)
        monkeypatch.setattr(type(world.host.space), "free_bytes", free)
        monkeypatch.setattr(space_of_host, "used_bytes", lambda folder: 0)
        room = world.host.space._room
        await world.host.space.look()
        await until(lambda: len(world.host.space._pausing) == 1 and not room.locked())
        over.append(True)
        await until(lambda: not world.host.space._pausing)
        assert sorted(world.look(box).state for box in boxes) == ["paused"] + ["running"] * 3

    async def test_what_a_machine_being_warmed_has_written_is_not_counted_twice(
        self, world, box, monkeypatch
    ):
        space = world.host.space
        world.engine.admission.adopt("warm tpl_base 2x1024", load_of(1024, 0.5))
        free = property(lambda self: (1 + 512 + 100) << 20)
        monkeypatch.setattr(type(space), "free_bytes", free)
        monkeypatch.setattr(space_of_host, "used_bytes", lambda folder: 0)
        monkeypatch.setattr(world.warm, "unfinished_bytes", lambda: 500 << 20)
        await space.look()
        assert not space._pausing
        monkeypatch.setattr(world.warm, "unfinished_bytes", lambda: 300 << 20)
        await space.look()
        await until(lambda: world.look(box).state == "paused")

    async def test_it_does_not_come_before_a_destroy(self, world, box):
        actor, ran, over = world.box(box), [], asyncio.Event()

        async def stubborn():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await over.wait()

        busy = asyncio.ensure_future(actor.perform(stubborn))
        await until(lambda: actor.turns.current)
        last = asyncio.ensure_future(actor.overrule(partial(note, ran, "destroy")))
        await until(lambda: actor.turns.is_final)
        first = asyncio.ensure_future(actor.perform(partial(note, ran, "pause"), first=True))
        await until(lambda: actor.turns.waiting == 2)
        over.set()
        await asyncio.gather(busy, last, first)
        assert ran == ["destroy", "pause"]

    async def test_a_pause_that_came_to_its_turn_when_there_is_room_again_is_none(
        self, world, box, full
    ):
        over = asyncio.Event()
        busy = asyncio.ensure_future(world.box(box).perform(over.wait))
        await until(lambda: world.box(box).turns.current)
        full()
        await world.host.space.look()
        full(full=False)
        over.set()
        await busy
        await world.box(box).perform(world.host.view)  # what waited is over
        assert world.look(box).state == "running"

    async def test_what_a_pause_must_still_write_is_not_free(self, world, box, monkeypatch):
        """Half of 1024 MB are counted for it, of which so much lies on the disk already."""
        space, saved = world.host.space, []
        free = property(lambda self: (1 + 500) << 20)
        monkeypatch.setattr(type(space), "free_bytes", free)
        monkeypatch.setattr(space_of_host, "used_bytes", lambda folder: sum(saved))
        saved[:] = [20 << 20]
        await space.look()
        assert not space._pausing
        saved[:] = [10 << 20]
        await space.look()
        await until(lambda: world.look(box).state == "paused")
        assert world.look(box).cause == "disk_low"

    async def test_creates_are_refused_meanwhile(self, settings):
        made = World(dataclasses.replace(settings, disk_headroom_mb=10**9))
        await made.host.start()
        with pytest.raises(CapacityExhausted, match="disk"):
            await made.host.create(order(queue=False))
        await made.close()


class TestSweep:
    @pytest.fixture
    async def ended(self, world, box):
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        return box

    async def test_one_that_cannot_be_removed_keeps_no_other_from_it(
        self, world, ended, monkeypatch
    ):
        other = await world.create()
        kill_machine(world, other)
        await until(lambda: world.look(other).state == "stopped")
        later = world.engine.clock.now() + timedelta(hours=24, seconds=1)
        monkeypatch.setattr(world.engine.clock, "now", lambda: later, raising=False)
        real = space_of_host.forget_disk

        async def forget(box):
            if box.id == ended:
                raise OSError(errno.EIO, "Input/output error")
            await real(box)

        with monkeypatch.context() as patch:
            patch.setattr(space_of_host, "forget_disk", forget)
            await world.host.space.sweep()
        assert [world.box(one).record.keeps_disk for one in (ended, other)] == [True, False]
        await world.host.space.sweep()
        assert not world.box(ended).record.keeps_disk

    async def test_a_kept_disk_goes_after_its_time(self, world, ended, monkeypatch):
        await world.host.space.sweep()
        assert world.box(ended).record.keeps_disk
        later = world.engine.clock.now() + timedelta(hours=24, seconds=1)
        monkeypatch.setattr(world.engine.clock, "now", lambda: later, raising=False)
        await world.host.space.sweep()
        assert list(world.engine.places.lives(ended)) == []
        assert world.look(ended).ending.recoverable_until is None

    async def test_a_ledger_without_anything_else_goes_after_days(self, world, box, monkeypatch):
        await world.destroy(box)
        await world.host.space.sweep()
        assert world.folder(box).exists()
        later = world.engine.clock.now() + timedelta(days=8)
        monkeypatch.setattr(world.engine.clock, "now", lambda: later, raising=False)
        await world.host.space.sweep()
        assert not world.folder(box).exists()

    async def test_prune_removes_now_what_would_go_later(self, world, ended):
        used = await world.host.disk_use()
        assert used.ended_bytes > 0
        assert used.sandboxes_bytes == 0
        pruned = await world.host.prune(ended=True, warm=True)
        assert (pruned.ended_sandboxes, pruned.warm_snapshots) == (1, 1)
        assert (await world.host.disk_use()).ended_bytes == 0

    async def test_prune_takes_nothing_from_the_living(self, world, box):
        await world.host.prune(ended=True, warm=True)
        await world.pause(box)
        assert await world.sh(box, "echo on") == "on"
        assert len(holders(world.settings.home)) == 1
