"""The last write of an act fails: nothing is said that is not so, and nothing is lost or left."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
from tests.flow.host.conftest import DEADLINE, World, fresh, holders, order, sandbox_id, until

from runtools.errors import OutcomeUnknown, RunToolsError, Unavailable
from runtools.platform.core.ports.host import Child
from runtools.platform.core.states import Act, State
from runtools.platform.host.engine import journal, ledger
from runtools.platform.host.engine.acts import conclude
from runtools.sdk.shapes.egress import Egress


@pytest.fixture
def failing(monkeypatch):
    """Have the journal refuse records that fit, so often; counts what it refused."""
    real = journal.save

    def fail(fits, times=1):
        failed = []

        def save(folder, record, **more):
            if len(failed) < times and fits(record):
                failed.append(record)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(folder, record, **more)

        monkeypatch.setattr(journal, "save", save)
        return failed

    yield fail
    monkeypatch.undo()


def over(act):
    """Records that say that an act of a kind has ended, however."""
    begun = []

    def fits(record):
        if record.under_way is not None and record.under_way.act is act:
            begun.append(record.sandbox_id)
            return False
        return record.sandbox_id in begun and record.under_way is None

    return fits


async def nothing_left(world, but=0):
    """As many machine processes as that; one that was suspended ends a moment after its files."""
    async with asyncio.timeout(10):  # one that was left running would stay for 12 s
        await until(lambda: len(holders(world.settings.home)) == but)


class TestFirstWrite:
    async def test_an_act_that_cannot_be_begun_is_refused(self, world, box, failing):
        failing(lambda record: record.under_way is not None)
        with pytest.raises(Unavailable, match=r"pause of .* failed: .*No space left"):
            await world.pause(box)
        assert (world.look(box).state, world.look(box).operation) == ("running", None)
        assert (await world.pause(box)).state == "paused"

    @pytest.mark.parametrize("state", ["running", "paused"])
    async def test_a_destroy_which_makes_room_goes_on_without_it(self, world, box, failing, state):
        if state == "paused":
            await world.pause(box)
        failed = failing(lambda record: record.under_way is not None, 10**9)
        assert (await world.destroy(box)).state == "stopped"
        assert failed
        entries = await world.host.settled(box, 0)
        assert entries.ending.reason == "destroyed by key_test"
        await nothing_left(world)


class TestHeldUp:
    async def test_nobody_waits_without_a_word_for_a_disk_that_stays_full(
        self, world, box, failing, monkeypatch
    ):
        monkeypatch.setattr(conclude, "_TELLING", 1)
        full = [True]
        is_over = over(Act.PAUSE)
        failing(lambda record: is_over(record) and bool(full), 10**9)
        op = fresh("op")
        for _ in range(2):  # a repeat, too
            with pytest.raises(OutcomeUnknown, match="is pausing, and its host cannot write"):
                await world.host.pause(box, op, "key_test")
        assert world.look(box).operation == "pausing"
        with pytest.raises(Unavailable, match="No space left"):
            await world.snapshot(box)
        with pytest.raises(Unavailable, match="No space left"):
            await world.sh(box, "true")
        full.clear()
        await until(lambda: world.look(box).state == "paused")
        assert (await world.host.pause(box, op, "key_test")).state == "paused"
        assert await world.sh(box, "echo on") == "on"

    async def test_so_is_who_changes_what_it_may_do(self, world, box, failing, monkeypatch):
        monkeypatch.setattr(conclude, "_TELLING", 1)
        failing(over(Act.PAUSE), 10**9)
        with pytest.raises(OutcomeUnknown):
            await world.pause(box)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(Unavailable, match="No space left"):
                await world.host.set_egress(box, 1, Egress(internet=False))
            with pytest.raises(Unavailable, match="No space left"):
                await world.host.set_limits(box, 5, None)
        failing(lambda _: False)
        await until(lambda: world.look(box).state == "paused")
        await world.host.set_egress(box, 1, Egress(internet=False))
        assert (await world.host.order(box)).internet is False

    async def test_and_who_repeats_a_create_whose_failure_is_not_written(
        self, world, failing, monkeypatch
    ):
        monkeypatch.setattr(conclude, "_TELLING", 1)
        begun = (State.RUNNING, State.STOPPED)
        failing(lambda record: record.state in begun, 10**9)
        wish = order()
        async with asyncio.timeout(DEADLINE):
            for _ in range(2):
                with pytest.raises(OutcomeUnknown, match="cannot write down that this has ended"):
                    await world.host.create(wish)
        failing(lambda _: False)
        await until(lambda: world.look(wish.sandbox_id).state == "stopped")
        with pytest.raises(Unavailable, match="did not start"):
            await world.host.create(wish)

    async def test_a_change_that_the_disk_does_not_take_is_refused(self, world, box, failing):
        failing(lambda record: True, 2)
        with pytest.raises(Unavailable, match=r"cannot be written down.*No space left"):
            await world.host.set_egress(box, 1, Egress(internet=False))
        with pytest.raises(Unavailable, match=r"cannot be written down.*No space left"):
            await world.host.set_limits(box, 5, None)
        seen = await world.host.order(box)
        assert (seen.internet, seen.idle_timeout_seconds) == (True, 600)

    async def test_what_was_asked_for_before_is_told_too_and_the_platforms_own_waits_on(
        self, world, box, failing, monkeypatch
    ):
        monkeypatch.setattr(conclude, "_TELLING", 10**9)
        failed, actor = failing(over(Act.PAUSE), 10**9), world.box(box)
        pausing = asyncio.ensure_future(world.pause(box))
        await until(lambda: failed)
        asked = [asyncio.ensure_future(one) for one in (world.snapshot(box), world.sh(box, "true"))]
        own = asyncio.ensure_future(actor.perform(lambda: asyncio.sleep(0)))
        await until(lambda: actor.turns.waiting == 3)
        actor.hold_up("No space left")
        with pytest.raises(OutcomeUnknown):
            await pausing
        for one in asked:
            with pytest.raises(Unavailable, match="No space left"):
                await one
        failing(lambda _: False)
        await own
        assert world.look(box).state == "paused"

    async def test_a_repeat_of_what_ended_before_is_answered(
        self, world, box, failing, monkeypatch
    ):
        monkeypatch.setattr(conclude, "_TELLING", 1)
        name, op = fresh("snp_"), fresh("op")
        kept = await world.host.snapshot(box, op, "key_test", name)
        failing(over(Act.PAUSE), 10**9)
        with pytest.raises(OutcomeUnknown):
            await world.pause(box)
        assert await world.host.snapshot(box, op, "key_test", name) == kept
        failing(lambda _: False)
        await until(lambda: world.look(box).state == "paused")

    async def test_a_child_whose_failure_is_not_written_is_not_said_to_run(
        self, world, box, failing, monkeypatch
    ):
        monkeypatch.setattr(conclude, "_TELLING", 1)
        well, ill = sandbox_id(), sandbox_id()
        begun = (State.RUNNING, State.STOPPED)
        failing(lambda record: record.sandbox_id == ill and record.state in begun, 10**9)
        children = [Child(sandbox_id=one) for one in (well, ill)]
        await world.host.fork(box, fresh("op"), "key_test", children)
        detail = world.look(box).detail
        assert (detail["children"], list(detail["failed_children"])) == ([well], [ill])
        failing(lambda _: False)
        await until(lambda: world.look(ill).state == "stopped")
        assert world.engine.admission.taken.sandboxes == 2

    async def test_a_destroy_ends_it_all_the_same(self, world, box, failing, monkeypatch):
        monkeypatch.setattr(conclude, "_TELLING", 1)
        failing(over(Act.PAUSE), 10**9)
        with pytest.raises(OutcomeUnknown):
            await world.pause(box)
        journal_of = world.box(box)
        assert journal_of.held_up
        monkeypatch.undo()
        await world.destroy(box)
        assert journal_of.held_up is None
        await nothing_left(world)

    async def test_an_end_that_a_later_start_writes_holds_up_nobody_any_more(
        self, settings, failing, monkeypatch
    ):
        monkeypatch.setattr(conclude, "_TELLING", 1)
        world = World(settings)
        await world.host.start()
        box = await world.create()
        failed = failing(lambda record: record.state is State.PAUSED, 10**9)
        with pytest.raises(OutcomeUnknown):
            await world.pause(box)
        assert failed
        await world.host.stop()
        world = World(settings)
        await world.host.start()
        await until(lambda: world.box(box).held_up)
        failing(lambda _: False)
        await until(lambda: world.look(box).state == "paused")
        assert (await world.resume(box)).state == "running"
        await world.close()


class TestPause:
    async def test_is_written_again_until_it_holds(self, world, box, failing):
        await world.sh(box, "sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/pid")
        failed = failing(over(Act.PAUSE), 3)
        seen = await world.pause(box)
        assert len(failed) == 3
        assert (seen.state, world.look(box).state) == ("paused", "paused")
        assert world.engine.admission.taken.sandboxes == 0
        assert await world.sh(box, "kill -0 $(cat /tmp/pid) && echo lives") == "lives"

    async def test_is_made_durable_when_the_disk_takes_it_again(self, world, box, failing):
        failed = failing(lambda record: record.state == "paused" and record.durable, 3)
        await world.pause(box)
        await until(lambda: world.look(box).durable)
        assert len(failed) == 3

    async def test_is_under_way_until_it_is_written(self, world, box, failing):
        op, known = fresh("op"), set(world.engine.places.ops.iterdir())
        failed = failing(over(Act.PAUSE), 10**9)
        pausing = asyncio.ensure_future(world.host.pause(box, op, "key_test"))
        await until(lambda: failed)
        # A repeat of it waits as well; what it would be told is not so yet.
        again = asyncio.ensure_future(world.host.pause(box, op, "key_test"))
        await asyncio.wait({pausing, again}, timeout=0.2)
        assert not pausing.done()
        assert not again.done()
        assert world.look(box).operation == "pausing"
        assert set(world.engine.places.ops.iterdir()) == known
        failing(lambda _: False)
        assert (await pausing).state == (await again).state == "paused"

    async def test_is_finished_by_the_next_start(self, settings, failing):
        world = World(settings)
        await world.host.start()
        box = await world.create()
        await world.sh(
            box, "echo kept > /root/file; sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/pid"
        )
        failed = failing(over(Act.PAUSE), 10**9)
        pausing = asyncio.ensure_future(world.pause(box))
        await until(lambda: failed)
        stopping = asyncio.ensure_future(world.host.stop())
        with pytest.raises(RunToolsError):
            await pausing
        await stopping
        failing(lambda _: False)
        world = World(settings)
        await world.host.start()
        assert world.look(box).state == "paused"
        assert await world.sh(box, "kill -0 $(cat /tmp/pid) && cat /root/file") == "kept"
        await world.close()

    async def test_a_saved_state_of_which_no_journal_knows_is_kept(self, settings):
        world = World(settings)
        await world.host.start()
        box = await world.create()
        await world.sh(box, "sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/pid")
        record = world.box(box).record
        await world.pause(box)
        await until(lambda: world.look(box).durable)
        await world.host.stop()
        journal.save(world.folder(box), record)  # as if no write of the pause had come through
        world = World(settings)
        await world.host.start()
        assert world.look(box).state == "paused"
        assert await world.sh(box, "kill -0 $(cat /tmp/pid) && echo lives") == "lives"
        await world.close()

    async def test_a_destroy_does_not_wait_for_it(self, world, box, failing):
        failed = failing(over(Act.PAUSE), 10**9)
        pausing = asyncio.ensure_future(world.pause(box))
        await until(lambda: failed)
        failing(lambda _: False)
        assert (await world.destroy(box)).state == "stopped"
        with pytest.raises(RunToolsError):
            await pausing
        await nothing_left(world)


class TestResume:
    async def test_is_written_again_until_it_holds(self, world, box, failing):
        await world.pause(box)
        failed = failing(over(Act.RESUME), 3)
        seen = await world.resume(box)
        assert len(failed) == 3
        assert (seen.state, world.look(box).state) == ("running", "running")
        assert world.engine.admission.taken.sandboxes == 1
        assert world.box(box).vigil.is_kept

    async def test_is_finished_by_the_next_start(self, settings, failing):
        world = World(settings)
        await world.host.start()
        box = await world.create()
        await world.pause(box)
        failed = failing(over(Act.RESUME), 10**9)
        resuming = asyncio.ensure_future(world.resume(box))
        await until(lambda: failed)
        stopping = asyncio.ensure_future(world.host.stop())
        with pytest.raises(RunToolsError):
            await resuming
        await stopping
        failing(lambda _: False)
        world = World(settings)
        await world.host.start()
        await until(lambda: world.look(box).state == "running")
        assert world.engine.admission.taken.sandboxes == 1
        await world.close()


class TestRollback:
    @pytest.mark.parametrize("state", ["running", "paused"])
    async def test_is_written_again_until_it_holds(self, world, box, failing, state):
        await world.sh(box, "echo before > /root/file")
        snapshot = await world.snapshot(box)
        await world.sh(box, "echo after > /root/file")
        if state == "paused":
            await world.pause(box)
        failed = failing(over(Act.ROLLBACK), 3)
        assert (await world.rollback(box, snapshot)).state == state
        assert len(failed) == 3
        assert (world.box(box).vigil.is_kept) == (state == "running")
        assert await world.sh(box, "cat /root/file") == "before"
        await nothing_left(world, but=1)


class TestSnapshotAndFork:
    async def test_a_snapshot_is_kept_and_said_to_be(self, world, box, failing):
        failed = failing(over(Act.SNAPSHOT), 2)
        name = await world.snapshot(box)
        assert len(failed) == 2
        assert (world.engine.places.snapshot(name)).exists()
        assert world.look(box).detail["snapshot"] == name

    async def test_children_run_and_are_said_to(self, world, box, failing):
        failed = failing(over(Act.FORK), 2)
        made = await world.fork(box, 2)
        assert len(failed) == 2
        assert [child.state for child in made.children] == ["running"] * 2
        assert len(world.look(box).detail["children"]) == 2
        assert world.engine.admission.taken.sandboxes == 3


class TestCreate:
    async def test_leaves_nothing_when_it_cannot_be_committed(self, world, failing):
        failed = failing(lambda record: record.state is State.RUNNING)
        wanted = order()
        with pytest.raises(RunToolsError, match="No space"):
            await world.host.create(wanted)
        assert failed
        assert world.look(wanted.sandbox_id).state == "stopped"
        assert world.look(wanted.sandbox_id).ending.cause == "start_failed"
        await nothing_left(world)
        assert world.engine.admission.taken.sandboxes == 0

    @pytest.mark.parametrize("refused", ["journal", "ledger", "report"])
    async def test_leaves_nothing_when_it_cannot_even_be_begun(self, world, monkeypatch, refused):
        def full(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        wish = order()
        with monkeypatch.context() as patch:
            if refused == "report":
                patch.setattr(world.engine.reports, "publish", full)
            elif refused == "ledger":
                patch.setattr(ledger, "append", full)
            else:
                patch.setattr(journal, "save", full)
            with pytest.raises(Unavailable, match="cannot be written down"):
                await world.host.create(wish)
        assert not world.folder(wish.sandbox_id).exists()
        assert (await world.host.create(wish)).state == "running"

    async def test_the_children_of_a_fork_that_cannot_all_be_begun_end(
        self, world, box, monkeypatch
    ):
        append, children = ledger.append, [Child(sandbox_id=sandbox_id()) for _ in range(2)]

        def full(folder, entry):
            if entry.sandbox_id == children[1].sandbox_id:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            append(folder, entry)

        with monkeypatch.context() as patch:
            patch.setattr(ledger, "append", full)
            with pytest.raises(Unavailable, match="cannot be written down"):
                await world.host.fork(box, fresh("op"), "key_test", children)
        await until(lambda: world.look(children[0].sandbox_id).state == "stopped")
        assert world.look(children[0].sandbox_id).ending.cause == "start_failed"
        await until(lambda: world.engine.admission.taken.sandboxes == 1)
        assert not world.folder(children[1].sandbox_id).exists()

    async def test_its_failure_is_written_again_until_it_holds(self, world, failing):
        refused = []

        def fits(record):
            if record.state is State.RUNNING:
                return True
            refused.append(record.state is State.STOPPED)
            return refused[-1] and sum(refused) < 3

        failing(fits, 10**9)
        wanted = order()
        with pytest.raises(RunToolsError, match="No space"):
            await world.host.create(wanted)
        assert world.look(wanted.sandbox_id).state == "stopped"
        assert sum(refused) == 3
        await nothing_left(world)

    async def test_a_child_leaves_nothing_either(self, world, box, failing):
        failing(lambda record: record.parent_id is not None and record.state is State.RUNNING)
        made = await world.fork(box, 2)
        assert sorted(child.state for child in made.children) == ["running", "stopped"]
        await nothing_left(world, but=2)
        assert world.engine.admission.taken.sandboxes == 2


class TestDestroy:
    async def test_goes_on_until_all_is_gone(self, world, box, monkeypatch):
        real, failures = world.network.close, [OSError("nft was killed") for _ in range(4)]

        async def close(slot):
            if failures:
                raise failures.pop()
            await real(slot)

        monkeypatch.setattr(world.network, "close", close)
        destroying = asyncio.ensure_future(world.destroy(box))
        await until(lambda: "failed" in world.look(box).detail)
        assert world.look(box).operation == "destroying"
        assert "nft was killed" in world.look(box).detail["failed"]
        assert (await destroying).state == "stopped"
        assert world.engine.admission.taken.sandboxes == 0

    async def test_is_finished_by_a_later_start(self, settings, monkeypatch):
        world = World(settings)
        await world.host.start()
        box = await world.create()
        failed = []

        async def close(_):
            failed.append(1)
            raise OSError("nft was killed")

        monkeypatch.setattr(world.network, "close", close)
        destroying = asyncio.ensure_future(world.destroy(box))
        await until(lambda: failed)
        stopping = asyncio.ensure_future(world.host.stop())
        with pytest.raises(RunToolsError):
            await destroying
        await stopping
        world = World(settings)
        real, failures = world.network.close, [OSError("nft was killed")]

        async def close_again(slot):
            if failures:
                raise failures.pop()
            await real(slot)

        monkeypatch.setattr(world.network, "close", close_again)
        await world.host.start()
        assert world.look(box).state != "stopped"  # the start did not wait for it
        await until(lambda: world.look(box).state == "stopped")
        await nothing_left(world)
        await world.close()
