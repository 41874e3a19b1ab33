"""Ends that nobody asked for while the disk takes nothing: none is lost, and nothing is kept too long."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from dataclasses import replace

import pytest
from tests.flow.host.conftest import World, order, until
from tests.flow.host.test_lifecycle import kill_machine

from runtools.errors import RunToolsError, Unavailable
from runtools.platform.core.ports.driver import Exit, VmmFailed
from runtools.platform.core.ports.host import Guest
from runtools.platform.core.states import State
from runtools.platform.host.engine import journal, ledger, recovery
from runtools.platform.host.engine.acts import end

SECRET = Guest(env={"TOKEN": "hidden-value"}, password_hash="$6$hidden$hash")


@pytest.fixture
def failing(monkeypatch):
    """Have a function of a module fail so often before it works again; counts what failed."""
    failed = []

    def fail(module, name, times):
        real = getattr(module, name)

        def act(*args, **more):
            if len(failed) < times:
                failed.append(name)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **more)

        monkeypatch.setattr(module, name, act)
        return failed

    return fail


class Disk:
    """A file system of its own below the host's home, which can be full in an instant."""

    def __init__(self, folder):
        self.folder = folder

    def mount(self, options, *words):
        subprocess.run(["mount", "-o", options, *words, self.folder], check=True)

    def fill(self):
        now = os.statvfs(self.folder)
        self.mount(f"remount,size={(now.f_blocks - now.f_bfree) * now.f_frsize}")

    def make_room(self):
        self.mount("remount,size=4g")


@pytest.fixture
def disk(home, seed):
    made = Disk(home / "host")
    made.mount("size=4g", "-t", "tmpfs", "tmpfs")
    subprocess.run(["cp", "-a", "--sparse=always", f"{seed}/.", made.folder], check=True)
    yield made
    subprocess.run(["umount", "--lazy", made.folder], check=True)


def told(world, box):
    """The ledger is whole, its last entry the end, and the followers know."""
    entries = ledger.read(world.folder(box))
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert (entries[-1].state, entries[-1].cause) == ("stopped", "vmm_exit")
    assert world.look(box).ending.cause == "vmm_exit"


class TestAnEndThatCannotBeWritten:
    async def test_is_journaled_when_the_disk_takes_it_again(self, world, box, failing):
        failed = failing(journal, "save", 4)
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        assert len(failed) == 4
        told(world, box)

    async def test_is_told_when_the_ledger_takes_it_again(self, world, box, failing):
        failed = failing(ledger, "append", 4)
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        assert len(failed) == 4
        told(world, box)

    async def test_is_told_when_the_report_log_takes_it_again(
        self, world, box, failing, monkeypatch
    ):
        """The ledger has it by then: there is nothing left to be written there."""
        failed = failing(world.engine.reports, "publish", 3)
        kill_machine(world, box)
        await until(lambda: len(failed) == 3 and world.look(box).state == "stopped")
        told(world, box)

    async def test_does_not_need_the_console(self, world, box, failing):
        failed = failing(end, "write_atomic", 1)
        await world.sh(box, "echo last words >/dev/console")
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        assert failed
        told(world, box)

    async def test_is_tried_again_where_the_machine_cannot_be_cleared(
        self, world, box, monkeypatch
    ):
        kill, failures = world.driver.kill, [VmmFailed("it does not die"), OSError("nor does that")]

        async def sometimes(machine):
            if failures:
                raise failures.pop()
            await kill(machine)

        monkeypatch.setattr(world.driver, "kill", sometimes)
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        told(world, box)

    async def test_is_tried_again_where_its_network_cannot_be_closed(self, world, box, monkeypatch):
        close, failures = world.network.close, [Unavailable("the firewall is busy")]

        async def sometimes(slot):
            if failures:
                raise failures.pop()
            await close(slot)

        monkeypatch.setattr(world.network, "close", sometimes)
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        assert world.network.taken == set()
        told(world, box)

    async def test_is_seen_though_a_watch_fails(self, world, settings, monkeypatch):
        box, watch = await world.create(), world.driver.watch
        failures = [RuntimeError("nobody foresaw it"), VmmFailed("nor that")]

        async def sometimes(machine):
            if failures:
                raise failures.pop()
            return await watch(machine)

        monkeypatch.setattr(world.driver, "watch", sometimes)
        world.box(box).vigil.begin()
        await until(lambda: not failures)
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        told(world, box)

    async def test_waits_for_the_next_start_where_this_one_ends_first(
        self, settings, failing, monkeypatch
    ):
        world = World(settings)
        await world.host.start()
        box = await world.create()
        with monkeypatch.context():
            failed = failing(journal, "save", 10**9)
            kill_machine(world, box)
            await until(lambda: failed)
            await world.host.stop()
            monkeypatch.undo()
        world = World(settings)
        await world.host.start()
        assert world.look(box).state == "stopped"
        told(world, box)
        await world.close()

    async def test_is_tried_again_by_a_start_that_could_not_write_it(self, settings, failing):
        world = World(settings)
        await world.host.start()
        box = await world.create()
        await world.host.stop()
        kill_machine(world, box)
        world = World(settings)
        failed = failing(journal, "save", 2)
        await world.host.start()
        await until(lambda: world.look(box).state == "stopped")
        assert len(failed) == 2
        told(world, box)
        await world.close()

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
    async def test_holds_on_a_disk_that_is_really_full(self, disk, settings):
        world = World(settings)
        await world.host.start()
        box = await world.create()
        disk.fill()
        kill_machine(world, box)
        with pytest.raises(OSError, match="No space"):
            world.box(box).books.note(world.box(box).record)
        disk.make_room()
        await until(lambda: world.look(box).state == "stopped")
        told(world, box)
        await world.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
class TestAStart:
    async def test_answers_though_no_block_is_free(self, disk, settings):
        """What ran runs on, all is looked at, acts are refused by name; with room, all goes on."""
        world = World(settings)
        await world.host.start()
        box, slept = await world.create(), await world.create()
        pid = await world.sh(box, "sleep 1000 >/dev/null 2>&1 & echo $!")
        await world.pause(slept)
        await until(lambda: world.look(slept).durable)
        await world.host.stop()
        former, entries = world.engine.reports.epoch, ledger.read(world.folder(box))
        # As a crash between journal and ledger leaves it.
        file = world.folder(box) / "ledger.jsonl"
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
        disk.fill()
        for started in (1, 2):
            world = World(settings)
            await world.host.start()
            assert world.engine.reports.epoch == former + started
            assert {one.sandbox_id: one.state for one in await world.host.known()} == {
                box: "running",
                slept: "paused",
            }
            assert (await world.host.view()).sandboxes_running == 1
            with pytest.raises(Unavailable, match="No space left"):
                await world.pause(box)
            with pytest.raises(RunToolsError, match=r"No space left|MB of disk"):
                await world.host.create(order(queue=False))
            if started == 1:
                await world.host.stop()
        disk.make_room()
        reports = world.host.reports(former + 2, 0)
        async with asyncio.timeout(30):
            told = {(await anext(reports)).sandbox_id for _ in range(2)}
        assert told == {box, slept}
        await reports.aclose()
        assert ledger.read(world.folder(box))[: len(entries)] == entries
        assert await world.sh(box, "pgrep -x sleep") == pid
        await world.destroy(slept)
        await world.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
class TestAShutdown:
    async def test_says_what_it_could_not_pause_and_why(self, disk, settings):
        world = World(settings)
        await world.host.start()
        box, slept = await world.create(), await world.create()
        await world.pause(slept)
        await until(lambda: world.look(slept).durable)
        disk.fill()
        left = await world.host.shutdown()
        assert list(left) == [box]
        assert "No space left" in left[box]
        assert await world.driver.is_live(world.box(box).machine())
        disk.make_room()
        world = World(settings)
        await world.host.start()
        assert await world.host.shutdown() == {}
        assert not await world.driver.is_live(world.box(box).machine())


class TestSavedThoughNoJournalSaysSo:
    """A state that a start has saved, or found saved, is no end, however long the disk takes nothing."""

    @pytest.fixture
    async def left(self, settings):
        """A sandbox that ran when its host ended, with a file to know it by."""
        world = World(settings)
        await world.host.start()
        box = await world.create()
        await world.sh(box, "echo kept >/root/known")
        machine = world.box(box).machine()
        await world.host.stop()
        return box, machine

    def refuse(self, monkeypatch, times):
        real, refused = journal.save, []

        def save(folder, record, **more):
            if record.state is State.PAUSED and len(refused) < times:
                refused.append(record)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(folder, record, **more)

        monkeypatch.setattr(journal, "save", save)
        return refused

    async def held(self, world, box, refused, times):
        await until(lambda: world.look(box).state != "running")
        assert len(refused) == times
        seen = world.look(box)
        assert (seen.state, seen.cause, seen.ending) == ("paused", "host_restart", None)
        await until(lambda: world.look(box).durable)
        assert await world.sh(box, "cat /root/known") == "kept"
        assert len(world.network.taken) == 1
        await world.close()

    @pytest.mark.parametrize("times", [1, 3, 8])
    async def test_one_whose_network_is_gone(self, settings, left, monkeypatch, times):
        (box, _), world = left, World(settings)

        async def fail(*_):
            raise Unavailable("the firewall is busy")

        monkeypatch.setattr(world.network, "adopt", fail)
        monkeypatch.setattr(recovery, "_NETWORK_ATTEMPTS", 1)
        refused = self.refuse(monkeypatch, times)
        await world.host.start()
        await self.held(world, box, refused, times)

    @pytest.mark.parametrize("times", [1, 3])
    async def test_one_that_was_saved_before(self, settings, left, monkeypatch, times):
        (box, machine), world = left, World(settings)
        await world.driver.suspend(machine)
        refused = self.refuse(monkeypatch, times)
        await world.host.start()
        await self.held(world, box, refused, times)

    async def test_one_that_was_resumed_before_its_end_had_its_turn(self, world, box):
        """What saw its VMM go finds another one in its place, and lets it be."""
        actor = world.box(box)
        await actor.perform(lambda: end.died(actor, actor.record.life.number, Exit(0, None)))
        assert world.look(box).state == "running"
        assert await world.sh(box, "echo on") == "on"

    async def test_one_without_a_network_is_not_taken_for_whole_at_the_next_start(
        self, settings, left
    ):
        (box, _), world = left, World(settings)
        folder = settings.host_home / "sandboxes" / box
        record = journal.load(folder)
        journal.save(folder, replace(record, life=replace(record.life, slot=None)))
        await world.host.start()
        assert (world.look(box).state, world.look(box).cause) == ("paused", "host_restart")
        assert await world.sh(box, "cat /root/known") == "kept"
        await world.close()


class TestSecretsGo:
    def kept(self, world):
        """Everything the host has on disk, but what the machines themselves wrote."""
        return b"".join(
            file.read_bytes()
            for file in world.settings.host_home.rglob("*")
            if file.is_file() and "vmm" not in file.parts and file.name != "overlay.img"
        )

    async def test_when_a_start_fails(self, world, monkeypatch):
        async def fail(*_):
            raise VmmFailed("it does not start")

        monkeypatch.setattr(world.driver, "clone", fail)
        with pytest.raises(RunToolsError):
            await world.create(guest=SECRET)
        assert b"hidden" not in self.kept(world)

    async def test_when_a_machine_dies_though_its_disk_is_kept(self, world):
        box = await world.create(guest=SECRET)
        assert b"hidden" in self.kept(world)
        token = world.box(box).record.life.token
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        assert b"hidden" not in self.kept(world)
        assert token.encode() not in self.kept(world)
        again = await world.create(recover_from=box, guest=SECRET)
        assert await world.sh(again, "echo $TOKEN") == "hidden-value"

    async def test_when_it_is_destroyed(self, world):
        box = await world.create(guest=SECRET)
        await world.destroy(box)
        assert b"hidden" not in self.kept(world)
