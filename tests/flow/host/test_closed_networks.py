"""A network that was closed is never closed again: by then its number may be another sandbox's."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import replace

import pytest
from tests.flow.host.conftest import World, order, until
from tests.flow.host.test_lifecycle import kill_machine

from runtools.errors import RunToolsError, Unavailable
from runtools.platform.core.states import Act, State
from runtools.platform.host.engine import history, journal
from runtools.platform.host.engine.acts.pause import release
from runtools.platform.host.engine.journal import UnderWay


class Refusing:
    """A disk that does not take some records of one sandbox; notes which it refused."""

    def __init__(self):
        self.fits = lambda record: False
        self.refused = []

    def save(self, real, folder, record, **more):
        if self.fits(record):
            self.refused.append(record)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(folder, record, **more)


@pytest.fixture
def disk(monkeypatch):
    made, real = Refusing(), journal.save
    monkeypatch.setattr(journal, "save", lambda *words, **more: made.save(real, *words, **more))
    return made


def slot_of(world, box):
    life = world.box(box).record.life
    return life.slot if life else None


async def other_with(world, slot):
    """Another sandbox, which gets the number that was just given back."""
    other = await world.create()
    assert slot_of(world, other) == slot
    return other


async def test_one_of_which_no_journal_knows_is_closed(world, box, disk):
    await world.pause(box)
    await until(lambda: world.look(box).durable)
    await world.box(box).perform(lambda: release(world.box(box)))
    assert world.network.taken == set()
    disk.fits = lambda record: record.life is not None and record.life.slot is not None
    with pytest.raises(Unavailable, match="No space"):
        await world.resume(box)
    assert disk.refused
    assert world.network.taken == set()
    disk.fits = lambda record: False
    assert await world.sh(box, "echo on") == "on"
    assert world.network.taken == {slot_of(world, box)}


class TestClosedOnce:
    async def test_by_a_destroy_after_a_rollback_whose_end_is_not_written(self, world, box, disk):
        snapshot, old = await world.snapshot(box), slot_of(world, box)
        # Its end: no act is under way any more, in a machine of its second life.
        disk.fits = lambda record: record.under_way is None and record.life.number == 2
        rolling = asyncio.ensure_future(world.rollback(box, snapshot))
        await until(lambda: disk.refused)
        assert world.box(box).record.under_way.act is Act.ROLLBACK
        other = await other_with(world, old)
        disk.fits = lambda record: False
        await world.destroy(box)
        await asyncio.gather(rolling, return_exceptions=True)
        assert world.network.taken == {slot_of(world, other)}

    async def test_by_a_destroy_that_is_tried_again(self, world, box, monkeypatch):
        old, forget, full = slot_of(world, box), history.forget, []

        def refuse(folder):
            full.append(folder)
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(history, "forget", refuse)
        destroying = asyncio.ensure_future(world.destroy(box))
        await until(lambda: full)
        other = await other_with(world, old)
        monkeypatch.setattr(history, "forget", forget)
        assert (await destroying).state == "stopped"
        assert world.network.taken == {slot_of(world, other)}

    async def test_by_an_end_that_is_tried_again(self, world, box, disk):
        old = slot_of(world, box)
        disk.fits = lambda record: record.state is State.STOPPED
        kill_machine(world, box)
        await until(lambda: disk.refused)
        other = await other_with(world, old)
        disk.fits = lambda record: False
        await until(lambda: world.look(box).state == "stopped")
        assert world.network.taken == {slot_of(world, other)}

    async def test_by_a_release_that_could_not_be_written(self, world, box, disk):
        old = slot_of(world, box)
        await world.pause(box)
        await until(lambda: world.look(box).durable)
        disk.fits = lambda record: record.sandbox_id == box
        with pytest.raises(OSError, match="No space"):
            await world.box(box).perform(lambda: release(world.box(box)))
        disk.fits = lambda record: False
        other = await other_with(world, old)
        await world.box(box).perform(lambda: release(world.box(box)))
        assert world.network.taken == {slot_of(world, other)}
        assert await world.sh(box, "echo on") == "on"
        assert len(world.network.taken) == 2

    async def test_by_a_destroy_of_one_whose_failed_start_is_not_written(self, world, disk):
        wish, ends = order(), (State.RUNNING, State.STOPPED)
        box = wish.sandbox_id
        disk.fits = lambda record: record.sandbox_id == box and record.state in ends
        creating = asyncio.ensure_future(world.host.create(wish))
        await until(lambda: any(one.state is State.STOPPED for one in disk.refused))
        old = disk.refused[0].life.slot
        other = await other_with(world, old)
        disk.fits = lambda record: False
        await world.destroy(box)
        with pytest.raises(RunToolsError):
            await creating
        assert world.network.taken == {slot_of(world, other)}


async def test_not_by_a_start_that_finds_it_named_by_one_that_had_closed_it(settings):
    """A destroy had closed it, and the host ended before the disk took that."""
    world = World(settings)
    await world.host.start()
    gone, box = await world.create(), await world.create()
    await world.sh(box, "echo kept >/root/known")
    slot, machine = slot_of(world, box), world.box(gone).machine()
    record, folder = world.box(gone).record, world.folder(gone)
    await world.host.stop()
    await world.driver.kill(machine)
    destroying = UnderWay(Act.DESTROY, "op_gone", "key_test", f"destroy {gone}")
    life = replace(record.life, slot=slot)
    journal.save(folder, replace(record, life=life, under_way=destroying))
    world = World(settings)
    await world.host.start()
    await until(lambda: world.look(gone).state == "stopped")
    assert world.network.taken == {slot}
    assert slot_of(world, box) == slot
    assert await world.sh(box, "cat /root/known") == "kept"
    await world.close()


async def test_not_by_a_destroy_that_a_start_could_not_finish_at_once(settings, disk):
    """Its network was closed before the host ended, of which no journal says anything."""
    world = World(settings)
    await world.host.start()
    gone = await world.create()
    machine, record, folder = world.box(gone).machine(), world.box(gone).record, world.folder(gone)
    await world.host.stop()
    await world.driver.kill(machine)
    destroying = UnderWay(Act.DESTROY, "op_gone", "key_test", f"destroy {gone}")
    journal.save(folder, replace(record, under_way=destroying))
    disk.fits = lambda record: record.sandbox_id == gone
    world = World(settings)
    await world.host.start()
    assert disk.refused
    other = await world.create()
    assert slot_of(world, gone) is not None
    disk.fits = lambda record: False
    await until(lambda: world.look(gone).state == "stopped")
    assert world.network.taken == {slot_of(world, other)}
    await world.close()


async def test_not_by_one_that_was_put_to_sleep_and_could_not_be_written_down(
    settings, disk, monkeypatch
):
    """Its network is gone, so a start saves it; that it is paused the disk takes only later."""
    world = World(settings)
    await world.host.start()
    box = await world.create()
    await world.sh(box, "echo kept >/root/known")
    await world.host.stop()
    world = World(settings)

    async def adopt(slot, policy, refused=None):
        raise Unavailable("the network is gone")

    monkeypatch.setattr(world.network, "adopt", adopt)
    disk.fits = lambda record: record.sandbox_id == box and record.state is State.PAUSED
    await world.host.start()
    assert disk.refused
    other = await world.create()
    disk.fits = lambda record: False
    await until(lambda: world.look(box).state == "paused")
    assert world.network.taken == {slot_of(world, other)}
    assert await world.sh(box, "cat /root/known") == "kept"
    assert len(world.network.taken) == 2
    await world.close()


@pytest.mark.parametrize("act", [Act.PAUSE, Act.RESUME])
async def test_one_of_a_sandbox_that_a_start_could_not_write_down_is_closed_later(
    settings, disk, act
):
    """The start keeps it, for its journal names it; what is tried again afterwards gives it back."""
    world = World(settings)
    await world.host.start()
    box = await world.create()
    await world.sh(box, "echo kept >/root/known")
    if act is Act.RESUME:
        await world.pause(box)
        await until(lambda: world.look(box).durable)
    record, folder = world.box(box).record, world.folder(box)
    await world.host.stop()
    under_way = UnderWay(act, "op_cut_off", "key_test", f"{act} {box}")
    journal.save(folder, replace(record, under_way=under_way))
    disk.fits = lambda record: record.sandbox_id == box and record.under_way is None
    world = World(settings)
    await world.host.start()
    assert disk.refused
    assert world.network.taken == {record.life.slot}
    disk.fits = lambda record: False
    await until(lambda: world.look(box).state == "paused")
    await until(lambda: not world.network.taken)
    assert await world.sh(box, "cat /root/known") == "kept"
    assert len(world.network.taken) == 1
    await world.close()
