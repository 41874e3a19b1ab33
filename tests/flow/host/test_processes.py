"""Processes of paused sandboxes: looking wakes nothing, also after restarts and with silent guests."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.flow.host.conftest import fresh, until

from runtools.errors import GuestUnreachable, HistoryChanged, Unavailable
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.core.states import Act
from runtools.platform.host.engine.acts import pause as pausing
from runtools.platform.host.engine.journal import UnderWay
from runtools.platform.host.guest.processes import GuestProcesses
from runtools.sdk.shapes.processes import ProcessRequest


async def started(world, box, command):
    process = await world.host.start_process(
        box, ProcessRequest(command=command, process_id=fresh("prc_"))
    )

    async def has_written():
        return (await world.host.get_process(box, process.id)).output.end > 0

    await until(has_written)
    return process.id


class TestPaused:
    async def test_a_restarted_host_knows_them_and_wakes_nothing(self, world, settings, box):
        name = await started(world, box, "echo hello; exec sleep 1000")
        await world.pause(box)
        await world.host.stop()
        world.__init__(settings)
        await world.host.start()
        [known] = await world.host.list_processes(box)
        assert (known.id, known.state, known.output.end) == (name, "running", 6)
        assert (await world.host.get_process(box, name)).state == "running"
        assert (await world.host.wait_process(box, name, 10)).state == "running"
        assert (await world.host.read_output(box, name, "output", 6, 100)).data == b""
        assert world.look(box).state == "paused"
        assert (await world.host.read_output(box, name, "output", 0, 100)).data == b"hello\n"
        assert world.look(box).state == "running"

    async def test_where_there_was_none_there_is_none(self, world, box):
        await world.pause(box)
        assert await world.host.list_processes(box) == []
        assert world.look(box).state == "paused"

    async def test_a_child_has_its_parents(self, world, box):
        name = await started(world, box, "echo hello")
        [child] = (await world.fork(box)).children
        await world.pause(child.sandbox_id)
        [known] = await world.host.list_processes(child.sandbox_id)
        assert known.id == name

    async def test_a_guest_that_does_not_tell_is_paused_and_said_to_be(
        self, world, box, monkeypatch
    ):
        name = await started(world, box, "echo hello")

        async def silent(_):
            await asyncio.Event().wait()

        with monkeypatch.context() as patched:
            patched.setattr(GuestProcesses, "list", silent)
            patched.setattr(pausing, "_ASKED_SECONDS", 0.05)
            assert (await world.pause(box)).state == "paused"
        with pytest.raises(GuestUnreachable, match="is paused"):
            await world.host.get_process(box, name)
        assert world.look(box).state == "paused"
        await world.resume(box)
        assert (await world.host.get_process(box, name)).state == "ended"

    async def test_after_a_pause_that_a_restart_finished_nobody_knows(self, world, settings, box):
        await started(world, box, "echo first")
        await world.pause(box)
        await world.resume(box)
        await started(world, box, "echo second")
        actor = world.box(box)
        actor.books.note(
            replace(actor.record, under_way=UnderWay(Act.PAUSE, fresh("op"), "key_test", "x"))
        )
        await world.host.stop()
        world.__init__(settings)
        await world.host.start()
        assert world.look(box).state == "paused"
        with pytest.raises(GuestUnreachable, match="is paused"):
            await world.host.list_processes(box)

    async def test_a_failed_rollback_says_nothing_of_them(self, world, box, monkeypatch):
        kept = await world.snapshot(box)
        name = await started(world, box, "echo hello")
        await world.pause(box)

        async def fail(_):
            raise VmmFailed("out of luck")

        with monkeypatch.context() as patched:
            patched.setattr(world.driver, "suspend", fail)
            with pytest.raises(Unavailable, match="out of luck"):
                await world.rollback(box, kept)
        assert [one.id for one in await world.host.list_processes(box)] == [name]
        assert world.look(box).state == "paused"

    async def test_output_beyond_what_was_noted_wakes_nobody(self, world, box):
        name = await started(world, box, "echo hello; exec sleep 1000")
        await world.pause(box)
        assert (await world.host.read_output(box, name, "output", 60, 100)).data == b""
        assert world.look(box).state == "paused"


@pytest.mark.parametrize("paused", [False, True])
async def test_who_follows_is_told_of_a_rollback(world, box, paused):
    name = await started(world, box, "echo hello; exec sleep 1000")
    before = (await world.host.get_process(box, name)).history
    kept = await world.snapshot(box)
    items = world.host.follow_output(box, name, "output", 0)
    assert (await anext(items)).data == b"hello\n"
    more = asyncio.ensure_future(anext(items))
    if paused:
        await world.pause(box)
    await world.rollback(box, kept)
    with pytest.raises(HistoryChanged, match="went back"):
        await asyncio.wait_for(more, 20)
    now = (await world.host.get_process(box, name)).history
    assert now != before
    with pytest.raises(HistoryChanged) as told:
        await anext(world.host.follow_output(box, name, "output", 6, before))
    assert told.value.details == {"history": now}
