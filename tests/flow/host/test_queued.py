"""Nobody waits without a word with a sandbox that waits for room on its host, nor behind it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from tests.flow.host.conftest import DEADLINE, World, fresh, order, sandbox_id, until

from runtools.errors import CapacityExhausted, Conflict, HostUnavailable, WaitsForRoom
from runtools.platform.core.ports.host import Child
from runtools.platform.host.engine.acts import queued
from runtools.platform.host.engine.recovery import Recovery
from runtools.sdk.shapes.egress import Egress


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(queued, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(queued, "_LOOK_SECONDS", 0.05)


@pytest.fixture
async def slept(world):
    """A paused sandbox whose snapshot is kept."""
    box = await world.create()
    world.kept = await world.snapshot(box)
    await world.pause(box)
    await until(lambda: world.look(box).durable)
    return box


@pytest.fixture
def full(world, monkeypatch):
    """The host's disk has no room for a pause of one more; until it is made."""
    monkeypatch.setattr(world.engine.admission, "_free_disk", lambda: 100 << 20)

    def make_room():
        monkeypatch.undo()
        world.engine.admission.kick()

    return make_room


async def queue_up(world, box):
    """Have it wait for room; what waits with it."""
    waking = asyncio.ensure_future(world.sh(box, "echo back"))
    await until(lambda: world.look(box).operation == "queued")
    return waking


async def is_at_rest(world, box, make_room):
    """Nothing wakes it, now that there is room."""
    assert world.engine.admission.waiting == 0
    make_room()
    seen = []

    async def look():
        seen.append(world.look(box))

    async with asyncio.timeout(DEADLINE):
        await world.box(box).perform(look)  # behind whatever waits there
    assert [(one.state, one.operation) for one in seen] == [("paused", None)]


class TestResume:
    async def test_on_a_full_disk_is_told_what_it_waits_for_and_goes_on_by_itself(
        self, world, slept, full, impatient
    ):
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(WaitsForRoom) as told:
                await world.resume(slept)
        assert "waits for room on its host, at place 1 of its queue" in told.value.message
        assert "asked for 512 MB of disk above the headroom" in told.value.message
        assert "runtools prune" in told.value.hint
        assert f"runtools sandbox pause {slept}" in told.value.hint
        assert told.value.details["what"] == "MB of disk above the headroom"
        assert told.value.details["position"] == 1
        assert world.look(slept).operation == "queued"
        full()
        await until(lambda: world.look(slept).state == "running")

    async def test_a_repeat_waits_with_the_first(self, world, slept, full, impatient):
        op = fresh("op")
        for _ in range(2):
            with pytest.raises(CapacityExhausted):
                await world.host.resume(slept, op, "key_test")
        full()
        async with asyncio.timeout(DEADLINE):
            await until(lambda: world.look(slept).state == "running")
        assert (await world.host.resume(slept, op, "key_test")).state == "running"

    async def test_says_who_is_before_it_where_there_would_be_room(self, settings, impatient):
        world = World(dataclasses.replace(settings, max_sandboxes=1))
        await world.host.start()
        slept = await world.create()
        await world.pause(slept)
        ran = await world.create()
        with pytest.raises(CapacityExhausted, match="asked for 1 sandboxes, 0 free"):
            await world.resume(slept)
        await world.destroy(ran)
        await until(lambda: world.look(slept).state == "running")
        await world.close()


class TestRestart:
    """Those who were told that it waits on do not ask again."""

    @pytest.fixture
    async def waits(self, settings, impatient):
        """A host with room for one, which runs, and a sandbox that waits for that; after a restart."""
        world = World(dataclasses.replace(settings, max_sandboxes=1))
        await world.host.start()
        world.slept, world.op = await world.create(), fresh("op")
        await world.pause(world.slept)
        world.ran = await world.create()
        with pytest.raises(WaitsForRoom):
            await world.host.resume(world.slept, world.op, "key_test")
        await world.host.stop()
        world.__init__(world.settings)
        yield world
        await world.close()

    async def test_it_waits_on(self, waits):
        await waits.host.start()
        await until(lambda: waits.engine.admission.waiting)
        assert waits.look(waits.slept).operation == "queued"
        assert waits.look(waits.slept).queue.position == 1
        await waits.destroy(waits.ran)
        await until(lambda: waits.look(waits.slept).state == "running")
        said = waits.box(waits.slept).record.entry
        assert (said.cause, said.actor) == ("request", "key_test")
        assert (await waits.host.resume(waits.slept, waits.op, "key_test")).state == "running"

    async def test_a_pause_has_it_wait_no_more(self, waits):
        await waits.host.start()
        await until(lambda: waits.engine.admission.waiting)
        async with asyncio.timeout(DEADLINE):
            assert (await waits.pause(waits.slept)).operation is None
        await is_at_rest(waits, waits.slept, waits.engine.admission.kick)
        await waits.destroy(waits.ran)
        assert waits.look(waits.slept).state == "paused"

    async def test_one_that_cannot_be_recovered_at_first_waits_on_too(self, waits, monkeypatch):
        at_rest, failed = Recovery._at_rest, []

        async def fails_once(self, box):
            if box.id == waits.slept and not failed:
                failed.append(box)
                raise OSError("Input/output error")
            await at_rest(self, box)

        monkeypatch.setattr(Recovery, "_at_rest", fails_once)
        await waits.host.start()
        await until(lambda: waits.engine.admission.waiting)
        assert failed
        await waits.destroy(waits.ran)
        await until(lambda: waits.look(waits.slept).state == "running")

    async def test_one_that_cannot_be_recovered_yet_is_not_said_to_be_paused(
        self, waits, monkeypatch
    ):
        """What is recovered later would have it go on all the same."""
        at_rest, takes = Recovery._at_rest, asyncio.Event()

        async def fails(self, box):
            if box.id == waits.slept and not takes.is_set():
                raise OSError("Input/output error")
            await at_rest(self, box)

        monkeypatch.setattr(Recovery, "_at_rest", fails)
        await waits.host.start()
        op = fresh("op")

        async def pause():
            return await waits.host.pause(waits.slept, op, "key_test")

        async with asyncio.timeout(DEADLINE):
            with pytest.raises(HostUnavailable, match="has not taken it over yet"):
                await pause()
        takes.set()
        await until(lambda: waits.engine.admission.waiting)
        async with asyncio.timeout(DEADLINE):
            assert (await pause()).operation is None  # as the api asks again by itself
        await is_at_rest(waits, waits.slept, waits.engine.admission.kick)
        await waits.destroy(waits.ran)
        assert waits.look(waits.slept).state == "paused"


class TestPause:
    async def test_has_it_wait_no_more_and_tells_who_waits_with_it(self, world, slept, full):
        waking = await queue_up(world, slept)
        resuming = asyncio.ensure_future(world.resume(slept))
        await until(lambda: world.box(slept).turns.waiting)
        async with asyncio.timeout(DEADLINE):
            seen = await world.pause(slept)
        assert seen.state == "paused"
        for told in (waking, resuming):
            with pytest.raises(Conflict, match="was paused again before there was room"):
                await told
        await is_at_rest(world, slept, full)
        # Who comes after it has it go on.
        assert (await world.resume(slept)).state == "running"

    async def test_has_nothing_wait_on_for_those_who_were_told_before(
        self, world, slept, full, impatient
    ):
        for _ in range(2):
            with pytest.raises(WaitsForRoom):
                await world.resume(slept)
            with pytest.raises(WaitsForRoom):
                await world.sh(slept, "echo back")
        # The first is under way; what waited behind it went with whom it was for.
        await until(lambda: not world.box(slept).turns.waiting)
        async with asyncio.timeout(DEADLINE):
            assert (await world.pause(slept)).state == "paused"
        await is_at_rest(world, slept, full)

    async def test_a_repeat_of_one_that_was_told_goes_on_with_the_first(
        self, world, slept, full, impatient
    ):
        ops = [fresh("op"), fresh("op")]
        for op in ops:
            with pytest.raises(WaitsForRoom):
                await world.host.resume(slept, op, "key_test")
        full()
        async with asyncio.timeout(DEADLINE):
            for op in ops:
                assert (await world.host.resume(slept, op, "key_test")).state == "running"


ACTS = {
    "snapshot": lambda world, box: world.snapshot(box),
    "rollback": lambda world, box: world.rollback(box, world.kept),
    "fork": lambda world, box: world.host.fork(
        box, fresh("op"), "key_test", [Child(sandbox_id=sandbox_id())]
    ),
    "recover": lambda world, box: world.host.create(order(recover_from=box)),
}


class TestOthers:
    async def test_are_refused_and_not_begun(self, world, slept, full):
        waking, known = await queue_up(world, slept), set(world.engine.actors)
        for act in ACTS.values():
            async with asyncio.timeout(DEADLINE):
                with pytest.raises(CapacityExhausted, match=f"{slept} waits for room"):
                    await act(world, slept)
        assert set(world.engine.actors) == known
        full()
        assert await waking == "back"

    async def test_those_that_were_asked_for_just_before_are_refused_too(self, world, slept, full):
        over = asyncio.Event()
        busy = asyncio.ensure_future(world.box(slept).perform(over.wait))
        await until(lambda: world.box(slept).turns.current)
        waking = asyncio.ensure_future(world.sh(slept, "echo back"))
        await until(lambda: world.box(slept).turns.waiting == 1)
        keeping = asyncio.ensure_future(world.snapshot(slept))
        await until(lambda: world.box(slept).turns.waiting == 2)
        over.set()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(CapacityExhausted, match="waits for room"):
                await keeping
        await busy
        full()
        assert await waking == "back"

    async def test_what_touches_nothing_is_done_meanwhile(self, world, slept, full):
        waking = await queue_up(world, slept)
        async with asyncio.timeout(DEADLINE):
            await world.host.set_limits(slept, 7, 70)
            await world.host.set_egress(slept, 3, Egress(internet=False))
        full()
        assert await waking == "back"
        order = world.box(slept).record.order
        assert (order.idle_timeout_seconds, order.internet) == (7, False)
        (slot,) = world.box(slept).slots()
        assert world.network.policies[slot] == order.policy

    async def test_a_destroy_waits_for_nothing(self, world, slept, full):
        waking = await queue_up(world, slept)
        assert (await world.destroy(slept)).state == "stopped"
        assert (await asyncio.gather(waking, return_exceptions=True))[0] is not None
        assert world.engine.admission.waiting == 0
