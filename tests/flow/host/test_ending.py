"""A process that is to end: it ends, or does not begin, whatever its sandbox is about to do."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import signal

import pytest
from tests.flow.host.conftest import DEADLINE, World, fresh, order, sandbox_id, until

from runtools.errors import (
    Conflict,
    GuestUnreachable,
    NotFound,
    ProcessEnded,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.host import ends
from runtools.platform.host.engine import durable, journal, snapshots
from runtools.platform.host.engine.acts import fork as forking
from runtools.platform.host.engine.acts import snapshot as snapping
from runtools.sdk.shapes.processes import ProcessRequest


def request(command, process_id=None):
    return ProcessRequest(command=command, process_id=process_id or fresh("prc"))


@pytest.fixture
async def full(settings):
    """A host with room for one, which runs; and one that sleeps."""
    world = World(dataclasses.replace(settings, max_sandboxes=1))
    await world.host.start()
    world.slept = await world.create()
    yield world
    await world.close()


async def crowd_out(world):
    """Another has its place."""
    await world.pause(world.slept)
    world.ran = await world.create()


async def ended(world, box, process_id):
    """Ask for its end: that waits for nothing."""
    async with asyncio.timeout(DEADLINE / 2):
        await world.host.end_process(box, process_id)


async def restarted(world):
    """The host is another by now."""
    await world.host.stop()
    world.__init__(world.settings)
    await world.host.start()


async def is_starting(world, box, monkeypatch, wanted):
    """A start that is with its guest, and the event that lets it go on."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    guest = world.box(box).guest.processes
    start = guest.start

    async def slowly(given):
        reached.set()
        await go_on.wait()
        return await start(given)

    monkeypatch.setattr(guest, "start", slowly)
    starting = asyncio.ensure_future(world.host.start_process(box, wanted))
    await reached.wait()
    return starting, go_on


def refuse(*_given, **_more):
    """A disk that is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


@contextlib.contextmanager
def full_disk(monkeypatch):
    """No journal is written meanwhile."""
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(journal, "save", refuse)
        yield


@pytest.fixture
def sought(monkeypatch):
    """Which processes were looked for, in which sandbox, to end them."""
    found, asked = [], ends.Ends._ended

    async def ended_(host, actor, process_id):
        found.append((actor.id, process_id))
        return await asked(host, actor, process_id)

    monkeypatch.setattr(ends.Ends, "_ended", ended_)
    return found


def when_captured(world, monkeypatch, then):
    """Do something in the middle of an act that captures: with what is captured, nothing of it happens."""
    capture = world.driver.capture

    async def captured(*given, **more):
        standstill = await capture(*given, **more)
        await then()
        return standstill

    monkeypatch.setattr(world.driver, "capture", captured)


async def runs_no_more(world, box, process_id):
    """It was ended, and nothing is owed."""
    await until(lambda: not world.box(box).record.to_end)
    seen = await world.host.get_process(box, process_id)
    assert (seen.state, seen.signal) == ("ended", signal.SIGKILL)


@pytest.fixture
async def pair(world, box):
    """What runs, and what has not begun."""
    ran, unbegun = request("sleep 1000"), request("true")
    await world.host.start_process(box, ran)
    return ran, unbegun


async def both_end(world, box, pair):
    for one in pair:
        await ended(world, box, one.process_id)


async def both_end_there(world, box, sought, pair):
    """In a machine that was made of what was captured: one is ended, the other never begins."""
    for one in pair:
        await until(lambda one=one: (box, one.process_id) in sought)
    await until(lambda: not world.box(box).record.to_end)
    with pytest.raises(ProcessEnded):
        await world.host.start_process(box, pair[1])


class TestUnbegun:
    async def test_a_start_that_waits_for_room_does_not_begin(self, full):
        await crowd_out(full)
        wanted = request("echo it ran >/workspace/ran")
        starting = asyncio.ensure_future(full.host.start_process(full.slept, wanted))
        await until(lambda: full.look(full.slept).operation == "queued")
        await ended(full, full.slept, wanted.process_id)
        await full.destroy(full.ran)
        with pytest.raises(ProcessEnded, match="the end of process"):
            await starting
        assert full.look(full.slept).state == "running"
        assert await full.sh(full.slept, "ls /workspace") == ""
        with pytest.raises(NotFound):
            await full.host.get_process(full.slept, wanted.process_id)

    async def test_a_start_that_comes_later_does_not_begin(self, world, box):
        wanted = request("true")
        await ended(world, box, wanted.process_id)
        with pytest.raises(ProcessEnded):
            await world.host.start_process(box, wanted)

    async def test_nor_in_a_fork(self, world, box):
        wanted = request("true")
        await ended(world, box, wanted.process_id)
        child = (await world.fork(box)).children[0].sandbox_id
        with pytest.raises(ProcessEnded):
            await world.host.start_process(child, wanted)

    async def test_nor_after_a_restart_of_the_host(self, world, box):
        wanted = request("true")
        await ended(world, box, wanted.process_id)
        await restarted(world)
        with pytest.raises(ProcessEnded):
            await world.host.start_process(box, wanted)

    async def test_nor_does_one_that_waited_for_room_before_the_restart(self, full):
        await crowd_out(full)
        wanted = request("echo it ran >/workspace/ran")
        starting = asyncio.ensure_future(full.host.start_process(full.slept, wanted))
        await until(lambda: full.look(full.slept).operation == "queued")
        await ended(full, full.slept, wanted.process_id)
        slept, ran = full.slept, full.ran
        await restarted(full)
        await asyncio.gather(starting, return_exceptions=True)
        again = asyncio.ensure_future(full.host.start_process(slept, wanted))
        await full.destroy(ran)
        with pytest.raises(ProcessEnded):
            await again
        await until(lambda: not full.box(slept).record.to_end)
        with pytest.raises(ProcessEnded):  # also when the guest was asked, and knew nothing of it
            await full.host.start_process(slept, wanted)
        assert await full.sh(slept, "ls /workspace") == ""

    async def test_none_is_forgotten_while_its_start_may_be_repeated(self, world, box, monkeypatch):
        monkeypatch.setattr(ends, "_MOST_CALLED_OFF", 2)
        wanted = [request("true") for _ in range(4)]
        for one in wanted:
            await ended(world, box, one.process_id)
        for one in wanted:
            with pytest.raises(ProcessEnded):
                await world.host.start_process(box, one)
        assert len(world.box(box).record.called_off) == 2
        monkeypatch.setattr(ends, "_CALLED_OFF", ends.timedelta(0))
        await ended(world, box, fresh("prc"))
        assert len(world.box(box).record.called_off) == 1

    async def test_who_asks_for_the_end_and_goes_has_it_all_the_same(self, world, box, monkeypatch):
        wanted = request("sleep 1000")
        starting, go_on = await is_starting(world, box, monkeypatch, wanted)
        ending = asyncio.ensure_future(world.host.end_process(box, wanted.process_id))
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        go_on.set()
        await starting
        await runs_no_more(world, box, wanted.process_id)

    async def test_one_that_is_with_the_guest_is_waited_for(self, world, box, monkeypatch):
        wanted = request("sleep 1000")
        starting, go_on = await is_starting(world, box, monkeypatch, wanted)
        ending = asyncio.ensure_future(world.host.end_process(box, wanted.process_id))
        await asyncio.sleep(0)
        assert not ending.done()
        go_on.set()
        assert (await starting).state == "running"
        await ending
        seen = await world.host.get_process(box, wanted.process_id)
        assert (seen.state, seen.signal) == ("ended", signal.SIGKILL)

    async def test_nor_is_it_when_its_sandbox_is_paused_meanwhile(self, world, box, monkeypatch):
        wanted, reached = request("sleep 1000"), asyncio.Event()

        async def never(_given):
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(world.box(box).guest.processes, "start", never)
        starting = asyncio.ensure_future(world.host.start_process(box, wanted))
        await reached.wait()
        ending = asyncio.ensure_future(ended(world, box, wanted.process_id))
        await asyncio.sleep(0.1)
        assert not ending.done()
        await world.pause(box)
        await ending
        assert world.box(box).record.to_end.keys() == {wanted.process_id}
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await world.resume(box)
        await until(lambda: not world.box(box).record.to_end)
        with pytest.raises(ProcessEnded):
            await world.host.start_process(box, wanted)

    async def test_after_a_rollback_it_may_begin(self, world, box):
        """What was asked for before was about another machine; what is meanwhile, about that one."""
        kept, wanted = await world.snapshot(box), [request("sleep 1000") for _ in range(4)]
        await ended(world, box, wanted[0].process_id)  # it is called off
        await world.pause(box)
        for one in (wanted[1], wanted[3]):
            await ended(world, box, one.process_id)  # it is to end
        rolling = asyncio.ensure_future(world.rollback(box, kept))
        await until(lambda: world.look(box).operation == "rolling_back")
        for one in wanted[2:]:
            await ended(world, box, one.process_id)
        await rolling
        assert world.box(box).record.to_end.keys() == {one.process_id for one in wanted[2:]}
        await world.resume(box)
        for one in wanted[:2]:
            assert (await world.host.start_process(box, one)).state == "running"
        for one in wanted[2:]:
            with pytest.raises(ProcessEnded):
                await world.host.start_process(box, one)

    async def test_in_one_that_is_not_made_yet(self, full):
        waits = sandbox_id()
        made = await full.host.create(order(sandbox_id=waits))
        assert made.operation == "queued"
        wanted = request("echo it ran >/workspace/ran")
        starting = asyncio.ensure_future(full.host.start_process(waits, wanted))
        await ended(full, waits, wanted.process_id)
        for look in (
            full.host.get_process(waits, wanted.process_id),
            full.host.wait_process(waits, wanted.process_id, 0),
            full.host.list_processes(waits),
        ):
            async with asyncio.timeout(DEADLINE / 2):
                with pytest.raises(WaitsForRoom, match="place 1"):
                    await look
        await full.destroy(full.slept)
        with pytest.raises(ProcessEnded):
            await starting
        assert await full.sh(waits, "ls /workspace") == ""


class TestBegun:
    async def test_a_repeat_of_its_start_is_answered(self, world, box):
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        for _ in range(2):
            await ended(world, box, wanted.process_id)
            seen = await world.host.start_process(box, wanted)
            assert (seen.state, seen.signal) == ("ended", signal.SIGKILL)

    async def test_in_one_that_sleeps_it_ends_when_that_goes_on(self, world, box):
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        await world.pause(box)
        await ended(world, box, wanted.process_id)
        assert world.look(box).state == "paused"
        assert (await world.host.get_process(box, wanted.process_id)).state == "running"
        await world.resume(box)
        async with asyncio.timeout(DEADLINE):
            seen = await world.host.wait_process(box, wanted.process_id, 60_000)
        assert seen.signal == signal.SIGKILL
        await until(lambda: not world.box(box).record.to_end)

    @pytest.mark.parametrize("is_full", [True, False])
    async def test_in_one_whose_pause_cannot_be_written_down_yet(
        self, world, box, monkeypatch, is_full
    ):
        """What is owed is written beside the end of the pause, which is older."""
        wanted, finish = request("sleep 1000"), world.box(box).books.finish
        await world.host.start_process(box, wanted)

        monkeypatch.setattr(world.box(box).books, "finish", refuse)
        pausing = asyncio.ensure_future(world.pause(box))
        await until(lambda: world.box(box).held_up is not None)
        if is_full:
            with full_disk(monkeypatch), pytest.raises(Unavailable):
                await ended(world, box, wanted.process_id)
        await ended(world, box, wanted.process_id)
        monkeypatch.setattr(world.box(box).books, "finish", finish)
        await asyncio.gather(pausing, return_exceptions=True)
        await until(lambda: world.look(box).state == "paused")
        await restarted(world)
        assert world.box(box).record.to_end.keys() == {wanted.process_id}
        await world.resume(box)
        await runs_no_more(world, box, wanted.process_id)

    async def test_also_after_a_restart_of_the_host(self, world, box):
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        await world.pause(box)
        await ended(world, box, wanted.process_id)
        await restarted(world)
        assert world.box(box).record.to_end.keys() == {wanted.process_id}
        await world.resume(box)
        async with asyncio.timeout(DEADLINE):
            seen = await world.host.wait_process(box, wanted.process_id, 60_000)
        assert seen.signal == signal.SIGKILL

    @pytest.mark.parametrize("failure", [GuestUnreachable, KeyError])
    @pytest.mark.parametrize("sleeps", [True, False])
    async def test_one_whose_guest_does_not_answer_is_ended_when_it_does(
        self, world, box, monkeypatch, sleeps, failure
    ):
        """And holds up no other."""
        stuck, other = request("sleep 1000"), request("sleep 1000")
        silent = True
        asked = ends.Ends._ended

        async def ended_(host, actor, process_id):
            if silent and process_id == stuck.process_id:
                raise failure("no answer for a moment")
            return await asked(host, actor, process_id)

        monkeypatch.setattr(ends.Ends, "_ended", ended_)
        for one in (stuck, other):
            await world.host.start_process(box, one)
        if sleeps:
            await world.pause(box)
            for one in (stuck, other):
                await ended(world, box, one.process_id)
            await world.resume(box)
        else:
            with pytest.raises(failure):
                await ended(world, box, stuck.process_id)
            await ended(world, box, other.process_id)
        await until(lambda: world.box(box).record.to_end.keys() == {stuck.process_id})
        assert (await world.host.get_process(box, stuck.process_id)).state == "running"
        silent = False
        await runs_no_more(world, box, stuck.process_id)

    async def test_none_that_is_owed_is_forgotten(self, world, box, monkeypatch):
        """What is too much is refused."""
        monkeypatch.setattr(ends, "_MOST_TO_END", 105)
        wanted = [request("sleep 1000") for _ in range(105)]
        for one in wanted:
            await world.host.start_process(box, one)
        await world.pause(box)
        for one in (*wanted, wanted[0]):
            await ended(world, box, one.process_id)
        with pytest.raises(Conflict, match="105 processes"):
            await ended(world, box, fresh("prc"))
        await world.resume(box)
        await until(lambda: not world.box(box).record.to_end)
        running = [one for one in await world.host.list_processes(box) if one.state == "running"]
        assert running == []

    async def test_it_ends_in_forks_too(self, world, box, sought):
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        await world.pause(box)
        await ended(world, box, wanted.process_id)
        result = await world.fork(box)
        child = result.children[0].sandbox_id
        await until(lambda: (child, wanted.process_id) in sought)
        await until(lambda: not world.box(child).record.to_end)
        assert (await world.host.get_process(child, wanted.process_id)).state != "running"
        assert world.box(box).record.to_end.keys() == {wanted.process_id}

    async def test_it_ends_in_forks_that_were_captured_before(
        self, world, box, monkeypatch, sought, pair
    ):
        """The parent's has ended by the time the child is there; the child's was alive."""
        when_captured(world, monkeypatch, lambda: both_end(world, box, pair))
        child = (await world.fork(box)).children[0].sandbox_id
        await both_end_there(world, child, sought, pair)
        await runs_no_more(world, box, pair[0].process_id)

    async def test_it_ends_in_children_that_are_on_their_way_too(
        self, world, box, monkeypatch, sought, pair
    ):
        first_start = forking.first_start

        async def meanwhile(*given):
            await both_end(world, box, pair)
            return await first_start(*given)

        monkeypatch.setattr(forking, "first_start", meanwhile)
        child = (await world.fork(box)).children[0].sandbox_id
        await both_end_there(world, child, sought, pair)


class TestSaved:
    """What was to end when a snapshot was taken is to end after a rollback to it."""

    async def test_what_was_asked_for_before_holds_after_a_rollback(self, world, box, sought):
        called_off, owed = request("true"), request("sleep 1000")
        await ended(world, box, called_off.process_id)
        await world.host.start_process(box, owed)
        await world.pause(box)
        await ended(world, box, owed.process_id)
        kept = await world.snapshot(box)
        await world.resume(box)
        await runs_no_more(world, box, owed.process_id)
        sought.clear()
        await world.rollback(box, kept)
        await until(lambda: (box, owed.process_id) in sought)
        await until(lambda: not world.box(box).record.to_end)
        with pytest.raises(ProcessEnded):
            await world.host.start_process(box, called_off)

    async def test_what_ends_while_it_is_taken_ends_after_a_rollback_too(
        self, world, box, monkeypatch, sought, pair
    ):
        """In the machine it has ended; in what was captured of it, it was alive."""
        with monkeypatch.context() as meanwhile:
            when_captured(world, meanwhile, lambda: both_end(world, box, pair))
            kept = await world.snapshot(box)
        await runs_no_more(world, box, pair[0].process_id)
        sought.clear()
        await world.rollback(box, kept)
        await both_end_there(world, box, sought, pair)

    async def test_what_ends_while_it_is_written_through_does_so_too(
        self, world, box, monkeypatch, sought, pair
    ):
        loop, sync = asyncio.get_running_loop(), snapping.sync

        def slowly(folder):
            ends_now = both_end(world, box, pair)
            asyncio.run_coroutine_threadsafe(ends_now, loop).result(DEADLINE)
            sync(folder)

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(snapping, "sync", slowly)
            kept = await world.snapshot(box)
        await runs_no_more(world, box, pair[0].process_id)
        sought.clear()
        await world.rollback(box, kept)
        await both_end_there(world, box, sought, pair)

    async def test_a_second_rollback_takes_it_back(self, world, box):
        wanted, first = request("sleep 1000"), await world.snapshot(box)
        await world.pause(box)
        await ended(world, box, wanted.process_id)
        second = await world.snapshot(box)
        await world.rollback(box, second)
        assert world.box(box).record.to_end.keys() == {wanted.process_id}
        await world.rollback(box, first)
        assert not world.box(box).record.to_end

    async def test_a_sheet_of_before_is_read(self, world, box):
        kept = await world.snapshot(box)
        sheet = world.engine.places.snapshot(kept) / snapshots.SHEET
        fields = json.loads(sheet.read_text())
        del fields["to_end"], fields["called_off"]
        sheet.write_text(json.dumps(fields))
        found = snapshots.find(world.engine.places, kept)
        assert (found.to_end, found.called_off) == ((), {})


class TestNotOwed:
    """What cannot be written down is done at once, or refused."""

    async def test_a_full_disk_refuses_what_would_have_to_wait(self, world, box, monkeypatch):
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        await world.pause(box)
        with full_disk(monkeypatch):
            for _ in range(2):
                with pytest.raises(Unavailable, match=wanted.process_id):
                    await ended(world, box, wanted.process_id)
        await ended(world, box, wanted.process_id)
        await restarted(world)
        await world.resume(box)
        await runs_no_more(world, box, wanted.process_id)

    async def test_what_a_disk_does_not_write_through_may_end_all_the_same(
        self, world, box, monkeypatch
    ):
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        await world.pause(box)

        async def fails(_box):
            refuse()

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(durable, "note", fails)
            with pytest.raises(Unavailable, match="it may be ended all the same"):
                await ended(world, box, wanted.process_id)
        await world.resume(box)
        await runs_no_more(world, box, wanted.process_id)

    @pytest.mark.parametrize("is_full", [True, False])
    async def test_what_is_captured_meanwhile_would_have_it_still(
        self, world, box, monkeypatch, is_full
    ):
        """It is ended all the same, and who asks is told; with room, a repeat is answered."""
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)

        async def end():
            with monkeypatch.context() as meanwhile:
                if is_full:
                    meanwhile.setattr(journal, "save", refuse)
                else:
                    meanwhile.setattr(ends, "_MOST_TO_END", 0)
                with pytest.raises(Unavailable if is_full else Conflict, match="captured of it"):
                    await ended(world, box, wanted.process_id)
            seen = await world.host.get_process(box, wanted.process_id)
            assert seen.state == "ended"
            await ended(world, box, wanted.process_id)

        when_captured(world, monkeypatch, end)
        child = (await world.fork(box)).children[0].sandbox_id
        await until(lambda: not world.box(child).record.to_end)
        assert (await world.host.get_process(child, wanted.process_id)).state != "running"
        await runs_no_more(world, box, wanted.process_id)

    async def test_so_would_what_is_captured_before_it_has_ended(self, world, box, monkeypatch):
        """The act begins after it was asked for, and is over by the time it has ended."""
        monkeypatch.setattr(ends, "_MOST_TO_END", 0)
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        asked = ends.Ends._ended

        async def late(host, actor, process_id):
            await world.snapshot(box)
            return await asked(host, actor, process_id)

        monkeypatch.setattr(ends.Ends, "_ended", late)
        with pytest.raises(Conflict, match="captured of it"):
            await ended(world, box, wanted.process_id)

    async def test_a_child_on_its_way_that_cannot_be_told(self, world, box, monkeypatch):
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        first_start, save = forking.first_start, journal.save

        async def end(child, *given):
            def refused(folder, record):
                return refuse() if record.sandbox_id == child.id else save(folder, record)

            with monkeypatch.context() as meanwhile:
                meanwhile.setattr(journal, "save", refused)
                with pytest.raises(Unavailable, match="captured of it"):
                    await ended(world, box, wanted.process_id)
            return await first_start(child, *given)

        monkeypatch.setattr(forking, "first_start", end)
        child = (await world.fork(box)).children[0].sandbox_id
        assert not world.box(child).record.to_end
        await runs_no_more(world, box, wanted.process_id)

    async def test_what_runs_ends_on_a_full_disk_too(self, world, box, monkeypatch):
        wanted = request("sleep 1000")
        await world.host.start_process(box, wanted)
        monkeypatch.setattr(journal, "save", refuse)
        await ended(world, box, wanted.process_id)
        await runs_no_more(world, box, wanted.process_id)

    async def test_what_has_not_begun_on_a_full_disk_may_begin(self, world, box, monkeypatch):
        wanted = request("sleep 1000")
        with full_disk(monkeypatch), pytest.raises(Unavailable):
            await ended(world, box, wanted.process_id)
        assert (await world.host.start_process(box, wanted)).state == "running"

    async def test_what_is_owed_and_cannot_be_called_off_stays_owed(self, world, box, monkeypatch):
        wanted, save = request("true"), journal.save

        def once(*given, **more):
            monkeypatch.setattr(journal, "save", refuse)
            save(*given, **more)

        monkeypatch.setattr(journal, "save", once)
        await ended(world, box, wanted.process_id)
        assert world.box(box).record.to_end.keys() == {wanted.process_id}
        monkeypatch.setattr(journal, "save", save)
        await restarted(world)
        with pytest.raises(ProcessEnded):
            await world.host.start_process(box, wanted)

    async def test_as_much_as_is_kept_keeps_nothing_from_ending_at_once(
        self, world, box, monkeypatch
    ):
        monkeypatch.setattr(ends, "_MOST_TO_END", 0)
        ran, unbegun = request("sleep 1000"), request("true")
        await world.host.start_process(box, ran)
        for one in (ran, unbegun):
            await ended(world, box, one.process_id)
        await runs_no_more(world, box, ran.process_id)
        with pytest.raises(ProcessEnded):
            await world.host.start_process(box, unbegun)

    async def test_of_what_is_not_owed_no_start_slips_by(self, world, box, monkeypatch):
        monkeypatch.setattr(ends, "_MOST_TO_END", 0)
        wanted, starting = request("sleep 1000"), []
        guest = world.box(box).guest.processes
        signal_ = guest.signal

        async def slowly(*given):
            try:
                return await signal_(*given)
            finally:
                starting.append(asyncio.ensure_future(world.host.start_process(box, wanted)))
                await asyncio.sleep(0.1)

        monkeypatch.setattr(guest, "signal", slowly)
        await ended(world, box, wanted.process_id)
        with pytest.raises(ProcessEnded):
            await starting[0]

    async def test_who_asks_is_told_where_it_cannot_be_ended_either(self, world, box, monkeypatch):
        monkeypatch.setattr(ends, "_MOST_TO_END", 0)

        async def silent(*_given):
            raise GuestUnreachable("no answer")

        monkeypatch.setattr(ends.Ends, "_ended", silent)
        with pytest.raises(Conflict):
            await ended(world, box, fresh("prc"))
