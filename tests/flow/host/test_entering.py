"""Streams into a sandbox over all that happens to it: pauses, waking, its end, and the host's."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from tests.flow.host.conftest import World, fresh, until

from runtools.errors import (
    CapacityExhausted,
    HostUnavailable,
    PortClosed,
    RateLimited,
    RunToolsError,
    SandboxStopped,
    WaitsForRoom,
)
from runtools.platform.gateway.reach import HostReach
from runtools.platform.host import entering
from runtools.platform.host.engine import idle
from runtools.platform.host.engine.acts.resume import awake
from runtools.platform.host.engine.admission import Admission
from runtools.platform.host.entrance import entrance
from runtools.platform.host.guest import identity
from runtools.platform.host.guest.client import Activity, GuestClient
from runtools.sdk.shapes.processes import OutputPiece, ProcessRequest
from runtools.testing import port_server
from runtools.testing.clock import ManualClock
from runtools.testing.contracts.host_rig import chunks

PING = b"\x89\x81mask"  # and a byte
STILL = Activity(0, 10, 0, 0, 0.0, 0.0)


@pytest.fixture
def clock(monkeypatch):
    async def activity(self):
        return STILL

    monkeypatch.setattr(GuestClient, "activity", activity)
    # The clocks inside are the machine's, whatever a test's own one says.
    monkeypatch.setattr(identity, "check", lambda *_: None)
    return ManualClock()


@pytest.fixture
async def world(settings, clock):
    made = World(settings, clock)
    await made.host.start()
    async with entrance(made.host.entering, settings.reach_socket):
        yield made
        await made.close()


@pytest.fixture
def reach(world):
    return HostReach(world.settings.reach_socket)


async def listen(world, box, kind):
    """The port of a fresh server in a sandbox."""
    code = Path(port_server.__file__).read_bytes()
    await world.host.write(box, fresh("op"), "/server.py", chunks(code), None, "replace")
    wish = ProcessRequest(command=["python3", "/server.py", kind], process_id=fresh("prc"))
    process = await world.host.start_process(box, wish)
    piece = OutputPiece(offset=0, data=b"")
    while not piece.data:
        piece = await world.host.read_output(box, process.id, "stdout", 0, 100)
        await asyncio.sleep(0.01)
    return int(piece.data)


async def look_after(world, clock, seconds):
    clock.advance(seconds)
    await world.host.idle.look()


async def talk(stream, said):
    """That an echo server answers."""
    reader, writer = stream
    writer.write(said)
    assert await reader.readexactly(len(said)) == said


async def ends(stream):
    """That nothing more comes."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            assert await stream[0].read() == b""
    stream[1].close()


async def test_to_open_one_wakes_a_sandbox(world, reach, box):
    port = await listen(world, box, "echo")
    await world.pause(box)
    stream = await reach.open(box, port)
    assert world.look(box).state == "running"
    await talk(stream, b"hello")
    stream[1].close()


async def test_one_lives_over_a_pause_and_what_is_said_wakes(world, reach, box):
    stream = await reach.open(box, await listen(world, box, "echo"))
    await talk(stream, b"before")
    await world.pause(box)
    await talk(stream, b"after" * 100_000)
    assert world.look(box).state == "running"
    stream[1].close()


async def test_one_that_is_to_wake_nothing_is_broken_off(world, reach, box, monkeypatch):
    monkeypatch.setattr(entering, "_WOKEN_SECONDS", 0.05)
    port = await listen(world, box, "echo")
    stream = await reach.open(box, port, wakes=False)
    await talk(stream, b"before")
    await world.pause(box)
    stream[1].write(b"after")
    await ends(stream)
    assert world.look(box).state == "paused"
    # Where somebody else has woken it, it goes on.
    stream = await reach.open(box, port, wakes=False)
    await world.pause(box)
    await world.resume(box)
    await talk(stream, b"again")
    stream[1].close()


async def test_one_that_is_to_wake_nothing_waits_a_moment_for_who_does(
    world, reach, box, monkeypatch
):
    monkeypatch.setattr(entering, "_WOKEN_SECONDS", 1000)
    stream = await reach.open(box, await listen(world, box, "echo"), wakes=False)
    await talk(stream, b"before")
    await world.pause(box)
    stream[1].write(b"after")
    [one] = world.host.entering._streams
    await until(lambda: one._work is not None, "that it waits")
    assert world.look(box).state == "paused"
    await world.resume(box)
    assert await stream[0].readexactly(5) == b"after"
    await talk(stream, b"and on")
    stream[1].close()


async def test_an_idle_one_keeps_nothing_awake_and_bytes_do(world, reach, clock, box):
    stream = await reach.open(box, await listen(world, box, "echo"))
    await world.host.idle.look()
    await look_after(world, clock, 500)
    await talk(stream, b"something")
    await look_after(world, clock, 599)
    assert world.look(box).state == "running"
    await look_after(world, clock, 1)
    assert world.look(box).state == "paused"
    await talk(stream, b"good morning")
    stream[1].close()


async def test_to_knock_where_nobody_is_keeps_nothing_awake(world, reach, clock, box):
    await world.host.idle.look()
    for _ in range(3):
        with pytest.raises(PortClosed):
            await reach.open(box, 9)
        await look_after(world, clock, 250)
    assert world.look(box).state == "paused"
    with pytest.raises(PortClosed):
        await reach.open(box, 9)
    assert world.look(box).state == "running"


async def test_nor_does_one_that_is_under_way_at_every_look(world, clock, box):
    await world.host.idle.look()
    with world.host.engine.actor(box).hold():
        for _ in range(3):
            await look_after(world, clock, 250)
        assert world.look(box).state == "running"
    await look_after(world, clock, 1)
    assert world.look(box).state == "paused"


async def test_some_are_kept_for_ssh(world, box, monkeypatch):
    monkeypatch.setattr(entering, "MAX_STREAMS", 52)
    entered = world.host.entering
    leaves = [entered.admit(box, 3000) for _ in range(2)]
    with pytest.raises(RateLimited, match="2 connections"):
        entered.admit(box, 3000)
    leaves += [entered.admit(box, 22) for _ in range(50)]
    with pytest.raises(RateLimited, match="52 connections"):
        entered.admit(box, 22)
    for leave in leaves:
        leave()
    assert entered.count(box) == 0


async def test_pings_of_a_websocket_keep_and_wake_nothing(world, reach, clock, box):
    stream = await reach.open(box, await listen(world, box, "echo"))
    await talk(stream, b"HTTP/1.1 101 S\r\n\r\n")
    await world.host.idle.look()
    await look_after(world, clock, 500)
    await talk(stream, PING + b"0")
    await look_after(world, clock, 100)
    assert world.look(box).state == "paused"
    for n in range(3):
        stream[1].write(PING + b"%d" % n)
    [one] = world.host.entering._streams
    await until(lambda: one._pulse.endswith(b"2"), "the latest ping")
    assert world.look(box).state == "paused"
    stream[1].write(b"\x81\x01a")
    assert (await stream[0].readuntil(b"\x81\x01a")).endswith(PING + b"2" + b"\x81\x01a")
    assert world.look(box).state == "running"
    stream[1].close()


async def test_without_a_websocket_the_same_bytes_are_something(world, reach, clock, box):
    stream = await reach.open(box, await listen(world, box, "echo"))
    await talk(stream, b"x")
    await world.host.idle.look()
    await look_after(world, clock, 500)
    await talk(stream, PING + b"0")
    await look_after(world, clock, 599)
    assert world.look(box).state == "running"
    await world.pause(box)
    await talk(stream, PING + b"1")
    assert world.look(box).state == "running"
    stream[1].close()


async def test_its_network_given_back_it_is_silent_until_the_sandbox_goes_on(
    world, reach, clock, box
):
    port = await listen(world, box, "echo")
    waits, speaks = await reach.open(box, port), await reach.open(box, port)
    await talk(waits, b"a")
    await talk(speaks, b"b")
    await world.pause(box)
    await look_after(world, clock, idle.NETWORK_SECONDS)
    await until(lambda: not world.network.taken, "the release")
    reading = asyncio.create_task(waits[0].read())
    speaks[1].write(b"anybody?")
    await ends(speaks)
    assert (world.look(box).state, reading.done()) == ("paused", False)
    await world.resume(box)
    async with asyncio.timeout(20):
        assert await reading == b""
    waits[1].close()
    await until(lambda: world.host.entering.count(box) == 0)


async def test_they_end_with_the_sandbox_and_none_begins(world, reach, box):
    port = await listen(world, box, "echo")
    awake = await reach.open(box, port)
    await talk(awake, b"x")
    await world.destroy(box)
    await ends(awake)
    with pytest.raises(SandboxStopped):
        await reach.open(box, port)


async def test_a_paused_ones_end_with_it_too(world, reach, clock, box):
    stream = await reach.open(box, await listen(world, box, "echo"))
    await talk(stream, b"x")
    await world.pause(box)
    await look_after(world, clock, idle.NETWORK_SECONDS)
    await until(lambda: not world.network.taken, "the release")
    await world.destroy(box)
    await ends(stream)


async def test_a_rollback_ends_them(world, reach, box):
    stream = await reach.open(box, await listen(world, box, "echo"))
    await talk(stream, b"x")
    await world.rollback(box, await world.snapshot(box))
    await ends(stream)


async def test_a_sandbox_that_cannot_be_woken_ends_what_asks(world, reach, box, monkeypatch):
    port = await listen(world, box, "echo")
    stream = await reach.open(box, port)
    await talk(stream, b"x")
    await world.pause(box)

    async def full(*_, **__):
        raise CapacityExhausted("no room")

    monkeypatch.setattr(Admission, "enter", full)
    stream[1].write(b"hello")
    await ends(stream)
    with pytest.raises(CapacityExhausted):
        await reach.open(box, port)


async def test_one_waits_for_room_as_long_as_it_takes(world, reach, box, monkeypatch):
    stream = await reach.open(box, await listen(world, box, "echo"))
    await world.pause(box)
    tries = []

    async def later(*args):
        tries.append(args)
        if len(tries) == 1:
            raise WaitsForRoom("at place 3")
        return await awake(*args)

    monkeypatch.setattr(entering, "awake", later)
    await talk(stream, b"hello")
    assert len(tries) == 2
    stream[1].close()


async def test_a_host_that_ends_ends_them(settings, clock):
    world = World(settings, clock)
    await world.host.start()
    async with entrance(world.host.entering, settings.reach_socket):
        box = await world.create()
        reach = HostReach(settings.reach_socket)
        stream = await reach.open(box, await listen(world, box, "echo"))
        await talk(stream, b"x")
    await ends(stream)
    with pytest.raises(HostUnavailable):
        await reach.open(box, 80)
    await world.close()


async def test_an_agent_from_before_is_told_of(world, reach, box, monkeypatch):
    monkeypatch.setattr("runtools.guest.protocol.SPOKEN", (1,))
    with pytest.raises(RunToolsError, match="build the template anew"):
        await reach.open(box, 80)
