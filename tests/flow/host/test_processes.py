"""Processes of paused sandboxes: looking wakes nothing, also after restarts and with silent guests."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest
from tests.flow.host.conftest import DEADLINE, fresh, until

from runtools.errors import HistoryChanged, SandboxPaused, Unavailable
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.core.states import Act
from runtools.platform.host.engine import known
from runtools.platform.host.engine.acts import pause as pausing
from runtools.platform.host.engine.journal import UnderWay
from runtools.platform.host.guest.channel import Channel, Stalled
from runtools.platform.host.guest.processes import GuestProcesses
from runtools.sdk.shapes.processes import OutputPiece, ProcessRequest


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
        [noted] = await world.host.list_processes(box)
        assert (noted.id, noted.state, noted.output.end) == (name, "running", 6)
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
        [noted] = await world.host.list_processes(child.sandbox_id)
        assert noted.id == name

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
        for look in (
            world.host.get_process(box, name),
            world.host.list_processes(box),
            world.host.wait_process(box, name, 10),
        ):
            with pytest.raises(SandboxPaused, match="is paused") as told:
                await look
        history = told.value.details["history"]
        # Who waits or follows is given what comes of it, and wakes nothing.
        waits = asyncio.ensure_future(world.host.wait_process(box, name, int(DEADLINE * 1000)))
        follows = asyncio.ensure_future(
            _all(world.host.follow_output(box, name, "output", 0, history))
        )
        assert not (await asyncio.wait((waits, follows), timeout=0.1))[0]
        assert world.look(box).state == "paused"
        await world.resume(box)
        assert (await asyncio.wait_for(waits, DEADLINE)).state == "ended"
        assert await asyncio.wait_for(follows, DEADLINE) == b"hello\n"
        seen = await world.host.get_process(box, name)
        assert (seen.state, seen.history) == ("ended", history)

    async def test_where_nobody_knows_bytes_are_read_by_waking_it(self, world, box):
        name = await started(world, box, "echo hello; exec sleep 1000")
        await world.pause(box)
        known.forget(world.box(box).machine().folder)
        assert (await world.host.read_output(box, name, "output", 6, 100)).data == b""
        assert world.look(box).state == "running"

    @pytest.mark.parametrize("tells", [True, False])
    async def test_before_a_pause_that_a_restart_finishes_they_are_asked_again(
        self, world, settings, box, monkeypatch, tells
    ):
        first = await started(world, box, "echo first")
        await world.pause(box)
        await world.resume(box)
        second = await started(world, box, "echo second; exec sleep 1000")
        actor = world.box(box)
        actor.books.note(
            replace(actor.record, under_way=UnderWay(Act.PAUSE, fresh("op"), "key_test", "x"))
        )
        await world.host.stop()
        world.__init__(settings)

        async def silent(_):
            await asyncio.Event().wait()

        with monkeypatch.context() as patched:
            if not tells:
                patched.setattr(GuestProcesses, "list", silent)
                patched.setattr(pausing, "_ASKED_SECONDS", 0.05)
            await world.host.start()
        assert world.look(box).state == "paused"
        if tells:
            found = {one.id: one.output.end for one in await world.host.list_processes(box)}
            assert found == {first: 6, second: 7}
        else:
            with pytest.raises(SandboxPaused, match="is paused"):
                await world.host.list_processes(box)
        assert world.look(box).state == "paused"

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

    async def test_a_look_while_it_is_being_paused_wakes_nothing(self, world, box, monkeypatch):
        name = await started(world, box, "echo hello; exec sleep 1000")
        begun, go = asyncio.Event(), asyncio.Event()
        suspend = world.driver.suspend

        async def held(machine):
            begun.set()
            await go.wait()
            await suspend(machine)

        monkeypatch.setattr(world.driver, "suspend", held)
        pause, host = asyncio.create_task(world.pause(box)), world.host
        await asyncio.wait_for(begun.wait(), DEADLINE)
        looks = asyncio.gather(
            host.list_processes(box),
            host.get_process(box, name),
            host.wait_process(box, name, 0),
            host.read_output(box, name, "output", 6, 100),
        )
        await asyncio.sleep(0)  # each has begun
        go.set()
        await pause
        [listed], got, waited, piece = await asyncio.wait_for(looks, DEADLINE)
        assert {one.id for one in (listed, got, waited)} == {name}
        assert piece.data == b""
        assert world.look(box).state == "paused"


async def test_a_look_takes_no_thread_of_those_for_what_lasts(world, box, monkeypatch):
    """Where the agent has none left for a wait, what runs can still be looked at, and ended."""
    name = await started(world, box, "echo hello; exec sleep 1000")

    async def refused(*_):
        raise Unavailable("216 calls that may last are under way inside")

    monkeypatch.setattr(GuestProcesses, "wait", refused)
    assert (await world.host.wait_process(box, name, 0)).state == "running"
    with pytest.raises(Unavailable):
        await world.host.wait_process(box, name, 1000)


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


class Wire:
    """Between the host and the guests, byte for byte, until a word comes, which it keeps the end of."""

    def __init__(self, driver, word):
        self._connect = driver.connect
        self._word = word
        self.held, self.half = asyncio.Event(), asyncio.Event()
        self._tasks = []
        driver.connect = self.connect

    async def connect(self, machine):
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        theirs.setblocking(False)
        guest = await self._connect(machine)
        self._tasks.append(asyncio.create_task(self._join(theirs, guest)))
        return mine

    async def _join(self, theirs, guest):
        host = await asyncio.open_connection(sock=theirs)
        agent = await asyncio.open_connection(sock=guest)
        try:
            both = [self._forth(host[0], agent[1]), self._back(agent[0], host)]
            tasks = [asyncio.create_task(one) for one in both]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for _, writer in (host, agent):
                writer.transport.abort()

    async def _forth(self, reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)

    async def _back(self, reader, host):
        while data := await reader.read(1 << 16):
            if self._word in data and not self.held.is_set():
                self.held.set()
                await self.half.wait()
                host[1].write(data[: data.index(self._word) + len(self._word) // 2])
                await asyncio.Event().wait()
            host[1].write(data)

    async def close(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_who_follows_loses_nothing_of_a_frame_in_which_it_is_paused(world, box, monkeypatch):
    line = "echo first; until [ -e /root/go ]; do sleep 0.05; done; echo second"
    name = await started(world, box, line)
    stalled = asyncio.Event()
    receive_bytes = Channel.receive_bytes

    async def hurried(self, size):
        if world.look(box).state != "paused":
            return await receive_bytes(self, size)
        self._stall = 0.2
        try:
            return await receive_bytes(self, size)
        except Stalled:
            stalled.set()
            raise

    monkeypatch.setattr(Channel, "receive_bytes", hurried)
    wire = Wire(world.driver, b"second")
    await world.box(box).guest.quiesce()  # so that all connections are new ones
    items = world.host.follow_output(box, name, "output", 0)
    assert (await anext(items)).data == b"first\n"
    rest = asyncio.ensure_future(_all(items))
    await world.sh(box, "touch /root/go")
    await asyncio.wait_for(wire.held.wait(), DEADLINE)
    await world.pause(box)
    wire.half.set()
    await asyncio.wait_for(stalled.wait(), DEADLINE)
    await world.resume(box)
    assert await asyncio.wait_for(rest, DEADLINE) == b"second\n"
    await wire.close()


async def _all(items):
    return b"".join([item.data async for item in items if isinstance(item, OutputPiece)])
