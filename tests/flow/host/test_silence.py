"""What was under way in a sandbox that is paused, goes back or ends is told that, by name."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
from tests.flow.host.conftest import DEADLINE, fresh, until
from tests.flow.host.test_hostile_guest import chunks

from runtools.errors import (
    GuestMisbehaved,
    GuestUnreachable,
    HistoryChanged,
    HostUnavailable,
    SandboxPaused,
    SandboxStopped,
)
from runtools.platform.core.states import State
from runtools.platform.host import silence
from runtools.platform.host.engine import journal
from runtools.platform.host.engine.acts.pause import pause, release
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.guest import client
from runtools.platform.host.silence import what_happened
from runtools.sdk.shapes.inside import ExecRequest

LINE = "touch /root/begun; until [ -e /root/go ]; do sleep 0.05; done; echo done"


@pytest.fixture
def nearly_full(world, monkeypatch):
    """Fill the disk, as far as the host's guard can see."""
    space = type(world.host.space)
    real = space.free_bytes

    def fill(full=True):
        monkeypatch.setattr(space, "free_bytes", property(lambda self: 0) if full else real)

    return fill


def run(world, box, name, line=LINE, timeout_ms=60_000):
    """A command under way in it."""
    request = ExecRequest(command=line, process_id=name, timeout_ms=timeout_ms)
    return asyncio.ensure_future(world.host.exec(box, request))


async def begun(world, box):
    """Wait until it is."""
    await until((world.box(box).folder / "1/vmm/tree/root/begun").exists)


async def told_again(world, box):
    """What the command says in the end to whoever asks for it again, which wakes the sandbox."""
    await world.sh(box, "touch /root/go")
    return (await run(world, box, "prc_long")).stdout


async def by_platform(world, box, cause):
    """A pause for which nobody has asked."""
    actor = world.box(box)
    await actor.perform(lambda: pause(actor, Why(cause, PLATFORM)))


class TestGuard:
    async def test_a_command_is_told_at_once_and_goes_on_when_it_is_asked_for_again(
        self, world, box, nearly_full
    ):
        running = run(world, box, "prc_long")
        await begun(world, box)
        nearly_full()
        await world.host.space.look()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(SandboxPaused) as told:
                await running
        assert "was paused at" in told.value.message
        assert "because its host's disk was almost full" in told.value.message
        assert "runtools df, runtools prune" in told.value.hint
        assert "same process id" in told.value.hint
        assert told.value.details["cause"] == "disk_low"
        assert told.value.details["actor"] == "platform"
        nearly_full(False)
        assert await told_again(world, box) == "done\n"

    async def test_whoever_reads_or_writes_a_file_is_told_too(self, world, box):
        size = 16 << 20
        await world.sh(box, f"head -c {size} /dev/zero > /root/large")
        _, body = await world.host.read(box, "/root/large", 0, None)
        await anext(body)
        asked = asyncio.Event()

        async def slow():
            yield b"x"
            asked.set()
            await asyncio.Event().wait()

        op = fresh("op")
        writing = asyncio.ensure_future(
            world.host.write(box, op, "/root/new", slow(), None, "replace")
        )
        await asked.wait()
        await by_platform(world, box, "lifetime")
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(SandboxPaused, match="had run for as long as it may"):
                await writing
            with pytest.raises(SandboxPaused, match="had run for as long as it may"):
                async for _ in body:
                    pass
        # The half that had come is not there, and the same write is done now.
        await world.host.write(box, op, "/root/new", chunks(b"whole"), None, "replace")
        assert await world.sh(box, "cat /root/new") == "whole"

    async def test_a_disk_that_takes_not_even_the_pause_keeps_nobody_waiting(
        self, world, box, monkeypatch
    ):
        monkeypatch.setattr(silence, "_END_SECONDS", 0.05)
        running = run(world, box, "prc_long")
        await begun(world, box)
        real, refused = journal.save, []

        def save(folder, record, **more):
            if record.state is State.PAUSED:
                refused.append(record)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(folder, record, **more)

        monkeypatch.setattr(journal, "save", save)
        pausing = asyncio.ensure_future(by_platform(world, box, "disk_low"))
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(SandboxPaused, match="disk was almost full"):
                await running
        assert refused
        monkeypatch.undo()
        await asyncio.gather(pausing, return_exceptions=True)
        assert await told_again(world, box) == "done\n"

    async def test_stats_are_what_it_last_said(self, world, box, monkeypatch):
        known = await world.host.stats(box)
        asked = asyncio.Event()

        async def silent(self):
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(client.GuestClient, "stats", silent)
        asking = asyncio.ensure_future(world.host.stats(box))
        await asked.wait()
        await by_platform(world, box, "disk_low")
        async with asyncio.timeout(DEADLINE):
            assert await asking == known

    async def test_a_host_that_goes_down_says_that_instead(self, world, box, settings):
        running = run(world, box, "prc_long")
        await begun(world, box)
        await world.host.shutdown()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(HostUnavailable, match="going down"):
                await running
        world.__init__(settings)
        await world.host.start()
        assert await told_again(world, box) == "done\n"


class TestAskedFor:
    async def test_one_that_stays_paused_is_told_who_did_it(self, world, box):
        running = run(world, box, "prc_long")
        await begun(world, box)
        await world.pause(box)
        assert not running.done()  # it may be resumed in a moment
        actor = world.box(box)
        await actor.perform(lambda: release(actor))
        with pytest.raises(SandboxPaused, match="UTC by key_test: ") as told:
            await running
        assert told.value.details["actor"] == "key_test"
        assert await told_again(world, box) == "done\n"

    async def test_one_whose_time_went_by_meanwhile_is_told_that_it_goes_on(self, world, box):
        since = world.box(box).record
        await world.pause(box)
        await world.resume(box)
        silent = GuestUnreachable("the agent inside did not answer in 1 s")
        told = await what_happened(world.box(box), silent, since)
        assert isinstance(told, SandboxPaused)
        assert "by key_test, and runs again by now" in told.message
        # What it has said is what it is told for.
        liar = GuestMisbehaved("the agent inside sent garbage")
        assert await what_happened(world.box(box), liar, since) is liar
        # And of one that nothing happened to, that it is silent.
        now = world.box(box).record
        assert await what_happened(world.box(box), silent, now) is silent


async def test_a_rollback_says_that_what_ran_is_gone(world, box):
    kept = await world.snapshot(box)
    running = run(world, box, "prc_long")
    await begun(world, box)
    await world.rollback(box, kept)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(HistoryChanged, match="went back to a snapshot meanwhile") as told:
            await running
    assert told.value.details["history"] == "2"


async def test_a_destroy_says_so(world, box):
    running = run(world, box, "prc_long")
    await begun(world, box)
    await world.destroy(box)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(SandboxStopped, match="destroyed by key_test"):
            await running
