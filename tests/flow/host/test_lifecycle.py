"""The life of a sandbox, on local machines with the real guest agent inside."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from dataclasses import replace

import pytest
from tests.flow.host.conftest import TEMPLATE, World, fresh, holders, order, sandbox_id, until

from runtools.errors import (
    CapacityExhausted,
    Conflict,
    GuestMisbehaved,
    HostUnavailable,
    IllegalMove,
    InvalidRequest,
    IsolationUnavailable,
    NotFound,
    RunToolsError,
    SandboxStopped,
    SnapshotUnfit,
    TemplateInUse,
    Unavailable,
)
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.core.ports.host import Child, Sizes
from runtools.platform.host import service
from runtools.platform.host.engine import durable, journal, ledger, machines, snapshots
from runtools.platform.host.engine.acts import create as create_act
from runtools.platform.host.guest.client import GuestClient

SLEEPER = "sleep 10000 >/dev/null 2>&1 & echo $!"


class TestCreate:
    async def test_starts_from_the_warm_snapshot_and_says_where_the_time_went(self, world):
        seen = await world.host.create(order())
        assert (seen.state, seen.started_from, seen.operation) == ("running", "warm", None)
        told = seen.timings
        parts = told.queue_ms + told.place_ms + told.restore_ms + told.network_ms
        parts += told.agent_ms + told.first_byte_ms
        assert 0 < parts <= told.total_ms

    async def test_the_environment_and_the_name_are_inside(self, world, box):
        assert await world.sh(box, "echo $GREETING; cat /etc/hostname") == f"hello\n{box}"

    async def test_other_sizes_boot_cold_and_are_warm_the_next_time(self, world):
        sizes = Sizes(vcpus=1, memory_mb=512, disk_mb=2048)
        first = await world.host.create(order(sizes=sizes))
        assert first.started_from == "cold"
        image = world.engine.templates.image(TEMPLATE)
        await until(lambda: world.warm.find(image, world.driver, 1, 512), "the warm snapshot")
        assert (await world.host.create(order(sizes=sizes))).started_from == "warm"

    async def test_a_smaller_disk_than_the_warm_one_boots_cold(self, world):
        small = order(sizes=Sizes(vcpus=2, memory_mb=1024, disk_mb=512))
        assert (await world.host.create(small)).started_from == "cold"
        assert world.box(small.sandbox_id).overlay.stat().st_size == 512 << 20

    async def test_a_larger_disk_is_grown_after_the_restore(self, world):
        large = order(sizes=Sizes(vcpus=2, memory_mb=1024, disk_mb=4096))
        assert (await world.host.create(large)).started_from == "warm"
        assert world.box(large.sandbox_id).overlay.stat().st_size == 4096 << 20

    async def test_a_repeat_joins_and_is_answered(self, world):
        wish = order()
        first, second = await asyncio.gather(world.host.create(wish), world.host.create(wish))
        assert first == second == await world.host.create(wish)
        assert len(holders(world.settings.home)) == 1

    async def test_a_repeat_after_its_end_is_told_that_it_ran(self, world):
        wish = order()
        await world.host.create(wish)
        kill_machine(world, wish.sandbox_id)
        await until(lambda: world.look(wish.sandbox_id).state == "stopped")
        with pytest.raises(SandboxStopped, match="ran and has stopped"):
            await world.host.create(wish)

    async def test_an_id_is_used_once(self, world, box):
        with pytest.raises(Conflict):
            await world.host.create(order(sandbox_id=box))

    @pytest.mark.parametrize(
        "name", ["", "../../etc", "sandbox-", "sandbox-../../../xx", "x" * 999]
    )
    async def test_an_id_that_is_none_names_no_folder(self, world, box, name):
        with pytest.raises(InvalidRequest):
            await world.host.create(order(sandbox_id=name))
        with pytest.raises(InvalidRequest):
            await world.host.fork(box, fresh("op"), "key_test", [Child(sandbox_id=name)])
        with pytest.raises(InvalidRequest):
            await world.host.snapshot(box, fresh("op"), "key_test", name)
        with pytest.raises(NotFound):
            await world.host.drop_snapshot(name)
        with pytest.raises(NotFound):
            await world.rollback(box, name)

    async def test_an_unknown_template_is_refused_before_anything_is_written(self, world):
        wish = order(template_version_id="tpl_none")
        with pytest.raises(NotFound):
            await world.host.create(wish)
        assert not world.folder(wish.sandbox_id).exists()

    async def test_hardware_isolation_is_refused_by_name_under_emulation(self, world):
        with pytest.raises(IsolationUnavailable) as refused:
            await world.host.create(order(require_isolation="hardware"))
        assert refused.value.details == {"required": "hardware", "available": "emulated"}

    async def test_a_vmm_that_does_not_come_up_leaves_nothing_but_the_reason(
        self, world, monkeypatch
    ):
        async def fail(machine, capture):
            raise VmmFailed("out of luck")

        monkeypatch.setattr(world.driver, "clone", fail)
        wish = order()
        with pytest.raises(Unavailable, match="out of luck"):
            await world.host.create(wish)
        seen = world.look(wish.sandbox_id)
        assert (seen.state, seen.ending.cause) == ("stopped", "start_failed")
        assert list(world.engine.places.lives(wish.sandbox_id)) == []
        assert world.network.taken == set()
        assert world.engine.admission.taken.sandboxes == 0

    async def test_a_vmm_that_dies_while_it_starts_is_not_waited_for(self, world, monkeypatch):
        asked = asyncio.Event()

        async def deaf(self, identity):
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(GuestClient, "renew", deaf)
        wish = order()
        creating = asyncio.ensure_future(world.host.create(wish))
        await asked.wait()
        kill_machine(world, wish.sandbox_id)
        with pytest.raises(Unavailable, match="ended"):
            await asyncio.wait_for(creating, 60)


def kill_machine(world, box_id):
    """End a machine's processes as the kernel would when memory is gone."""
    import json
    import os
    import signal

    place = world.engine.places.life(box_id, world.box(box_id).record.life.number) / "vmm"
    os.kill(json.loads((place / "holder.json").read_text())["first"], signal.SIGKILL)


class TestGate:
    """Nobody gets a sandbox that was not renewed: the renewal is switched off, and it refuses."""

    @pytest.fixture
    def no_renewal(self, monkeypatch):
        real = GuestClient.renew

        async def renew(self, identity):
            other = dataclasses.replace(identity, machine_id="0" * 32) if identity.fresh else None
            told = await real(self, other or identity)
            return told if identity.fresh else dataclasses.replace(told, nonce="stale")

        return lambda: monkeypatch.setattr(GuestClient, "renew", renew)

    async def test_a_create_is_refused(self, world, no_renewal):
        no_renewal()
        wish = order()
        with pytest.raises(GuestMisbehaved) as refused:
            await world.host.create(wish)
        assert refused.value.details["notRenewed"] == ["machine-id"]
        assert world.look(wish.sandbox_id).state == "stopped"
        assert holders(world.settings.home) == []

    @pytest.fixture
    def not_renewed(self, monkeypatch):
        """A machine whose agent answers as asked, and left its clock or its entropy as they were."""
        real = GuestClient.renew

        def leave(what):
            async def renew(self, identity):
                told = dataclasses.replace(await real(self, identity), machine=True, reseeded=True)
                old = {"clock": {"clock": told.clock - 3600}, "entropy": {"reseeded": False}}
                return dataclasses.replace(told, **old[what])

            monkeypatch.setattr(GuestClient, "renew", renew)

        return leave

    @pytest.mark.parametrize("what", ["clock", "entropy"])
    async def test_what_is_not_renewed_is_not_handed_out(
        self, world, box, not_renewed, monkeypatch, what
    ):
        await world.pause(box)
        not_renewed(what)
        wish = order()
        with pytest.raises(GuestMisbehaved) as refused:
            await world.host.create(wish)
        assert refused.value.details["notRenewed"] == [what]
        assert world.look(wish.sandbox_id).state == "stopped"
        with pytest.raises(GuestMisbehaved) as refused:
            await world.resume(box)
        assert refused.value.details["notRenewed"] == [what]
        assert world.look(box).state == "paused"
        assert len(holders(world.settings.home)) == 1
        monkeypatch.undo()
        assert (await world.resume(box)).state == "running"

    async def test_a_fork_is_refused(self, world, box, no_renewal):
        no_renewal()
        with pytest.raises(SandboxStopped, match="machine-id"):
            await world.fork(box)
        assert len(holders(world.settings.home)) == 1

    async def test_what_is_saved_again_after_a_refusal_is_not_called_durable_before_it_is(
        self, world, box, no_renewal, monkeypatch
    ):
        await world.pause(box)
        await until(lambda: world.look(box).durable)
        make, seen = durable.make, []

        def watched(actor):
            seen.append(actor.record.durable)
            return make(actor)

        monkeypatch.setattr(durable, "make", watched)
        no_renewal()
        with pytest.raises(GuestMisbehaved):
            await world.resume(box)
        assert seen == [False]
        await until(lambda: world.look(box).durable)
        assert world.look(box).state == "paused"

    async def test_a_resume_is_refused_and_the_state_is_kept(
        self, world, box, no_renewal, monkeypatch
    ):
        await world.pause(box)
        no_renewal()
        with pytest.raises(GuestMisbehaved):
            await world.resume(box)
        assert world.look(box).state == "paused"
        monkeypatch.undo()
        assert (await world.resume(box)).state == "running"


class TestPause:
    async def test_processes_go_on_after_it(self, world, box):
        pid = await world.sh(box, SLEEPER)
        assert (await world.pause(box)).state == "paused"
        assert not await world.driver.is_live(world.box(box).machine())
        assert (await world.resume(box)).state == "running"
        assert await world.sh(box, "pgrep sleep") == pid

    async def test_it_gives_its_memory_back_but_not_its_disk(self, world, box):
        await world.pause(box)
        assert world.engine.admission.taken.sandboxes == 0
        assert world.box(box).overlay.exists()

    async def test_it_says_when_it_would_survive_a_power_loss(self, world, box):
        assert (await world.pause(box)).durable is False
        await until(lambda: world.look(box).durable, "durable")

    async def test_an_exec_wakes_it_and_waits(self, world, box):
        await world.pause(box)
        assert await world.sh(box, "echo back") == "back"
        assert world.look(box).state == "running"

    async def test_many_execs_wake_it_once(self, world, box):
        await world.pause(box)
        await asyncio.gather(*(world.sh(box, "true") for _ in range(5)))
        entries = ledger.read(world.folder(box))
        assert len([e for e in entries if e.operation == "resuming"]) == 1

    async def test_looking_at_it_does_not(self, world, box):
        await world.host.stats(box)
        await world.pause(box)
        assert (await world.host.stats(box)).memory_total_bytes > 0
        await world.host.console(box, 10)
        await world.host.view()
        assert world.look(box).state == "paused"

    async def test_an_exec_under_way_goes_on_after_a_pause(self, world, box):
        running = asyncio.ensure_future(world.sh(box, "sleep 1; echo done"))
        await until(lambda: world.box(box).uses)
        await world.pause(box)
        await world.resume(box)
        assert await running == "done"

    async def test_a_failed_save_leaves_it_running(self, world, box, monkeypatch):
        async def fail(machine):
            raise VmmFailed("no space")

        with monkeypatch.context() as patch:
            patch.setattr(world.driver, "suspend", fail)
            with pytest.raises(Unavailable, match="no space"):
                await world.pause(box)
        assert (world.look(box).state, world.look(box).operation) == ("running", None)
        assert await world.sh(box, "echo alive") == "alive"

    async def test_pausing_twice_is_answered(self, world, box):
        assert await world.pause(box) == await world.pause(box)

    async def test_a_state_that_fits_no_more_is_refused_by_name(self, world, box, monkeypatch):
        await world.pause(box)
        with monkeypatch.context() as patch:
            patch.setattr(world.driver, "fingerprint", lambda machine: {"vmm": "other"})
            with pytest.raises(SnapshotUnfit, match="vmm"):
                await world.resume(box)
        assert world.look(box).state == "paused"
        await world.resume(box)

    async def test_its_network_is_released_after_a_while_and_made_anew(self, world, box):
        from runtools.platform.host.engine.acts.pause import release

        await world.pause(box)
        assert len(world.network.taken) == 1
        actor = world.box(box)
        await actor.perform(lambda: release(actor))
        assert world.network.taken == set()
        assert await world.sh(box, "echo back") == "back"
        assert len(world.network.taken) == 1


class TestSnapshot:
    async def test_a_rollback_brings_the_disk_of_that_moment_back(self, world, box):
        await world.sh(box, "echo one > /workspace/x")
        kept = await world.snapshot(box)
        await world.sh(box, "echo two > /workspace/x")
        seen = await world.rollback(box, kept)
        assert seen.state == "running"
        assert await world.sh(box, "cat /workspace/x") == "one"

    async def test_it_can_be_done_again_and_again(self, world, box):
        await world.sh(box, "echo one > /workspace/x")
        kept = await world.snapshot(box)
        for _ in range(2):
            await world.sh(box, "rm /workspace/x")
            await world.rollback(box, kept)
            assert await world.sh(box, "cat /workspace/x") == "one"
        assert len(holders(world.settings.home)) == 1
        assert len(list(world.engine.places.lives(box))) == 1
        assert len(world.network.taken) == 1

    async def test_a_paused_sandbox_stays_paused(self, world, box):
        await world.sh(box, "echo one > /workspace/x")
        kept = await world.snapshot(box)
        await world.sh(box, "echo two > /workspace/x")
        await world.pause(box)
        assert (await world.rollback(box, kept)).state == "paused"
        assert world.engine.admission.taken.sandboxes == 0
        assert await world.sh(box, "cat /workspace/x") == "one"

    async def test_a_paused_sandbox_can_be_kept(self, world, box):
        await world.sh(box, "echo one > /workspace/x")
        await world.pause(box)
        kept = await world.snapshot(box)
        assert world.look(box).state == "paused"
        await world.sh(box, "echo two > /workspace/x")
        await world.rollback(box, kept)
        assert await world.sh(box, "cat /workspace/x") == "one"

    async def test_a_failed_rollback_leaves_everything_as_it_was(self, world, box, monkeypatch):
        pid = await world.sh(box, SLEEPER)
        kept = await world.snapshot(box)

        async def fail(machine, capture):
            raise VmmFailed("out of luck")

        monkeypatch.setattr(world.driver, "clone", fail)
        with pytest.raises(Unavailable, match="out of luck"):
            await world.rollback(box, kept)
        assert await world.sh(box, "pgrep sleep") == pid
        assert list(world.engine.places.lives(box)) == [world.box(box).record.life.number]

    async def test_a_rollback_has_no_second_machine_where_there_is_no_room_for_it(self, settings):
        """512 MB are counted for one."""
        world = World(dataclasses.replace(settings, memory_mb=1000))
        await world.host.start()
        box = await world.create()
        kept = await world.snapshot(box)
        await world.sh(box, "touch /root/later")
        with pytest.raises(CapacityExhausted, match="memory"):
            await world.rollback(box, kept)
        assert await world.sh(box, "ls /root/later") == "/root/later"
        await world.pause(box)
        await world.rollback(box, kept)
        assert await world.sh(box, "ls /root") == ""
        assert world.engine.admission.taken.sandboxes == 1
        await world.close()

    async def test_a_snapshot_of_another_sandbox_is_refused(self, world, box):
        kept = await world.snapshot(await world.create())
        with pytest.raises(NotFound):
            await world.rollback(box, kept)

    async def test_a_repeat_does_not_roll_back_again(self, world, box):
        kept, op = await world.snapshot(box), fresh("op")
        await world.host.rollback(box, op, "key_test", kept)
        await world.sh(box, "echo after > /workspace/x")
        await world.host.rollback(box, op, "key_test", kept)
        assert await world.sh(box, "cat /workspace/x") == "after"

    async def test_a_dropped_one_is_gone(self, world, box):
        kept = await world.snapshot(box)
        await world.host.drop_snapshot(kept)
        assert list(world.engine.places.snapshots.iterdir()) == []
        with pytest.raises(NotFound):
            await world.host.drop_snapshot(kept)

    async def test_one_that_is_being_restored_is_not_dropped(self, world, box):
        kept = await world.snapshot(box)
        with snapshots.pinned(world.engine, kept), pytest.raises(Conflict):
            await world.host.drop_snapshot(kept)

    async def test_a_half_made_one_is_not_left(self, world, box, monkeypatch):
        async def fail(machine, into, while_still, keep_free):
            raise VmmFailed("no space")

        monkeypatch.setattr(world.driver, "capture", fail)
        with pytest.raises(Unavailable):
            await world.snapshot(box)
        assert list(world.engine.places.snapshots.iterdir()) == []

    async def test_a_damaged_one_is_in_nobodys_way(self, world, box):
        whole, damaged = await world.snapshot(box), "snp_damaged"
        world.engine.places.snapshot(damaged).mkdir()
        (world.engine.places.snapshot(damaged) / "snapshot.json").write_text("{")
        await world.rollback(box, whole)
        await world.destroy(box)
        assert [one.name for one in world.engine.places.snapshots.iterdir()] == [damaged]


class TestFork:
    async def test_children_are_copies_with_identities_of_their_own(self, world, box):
        await world.sh(box, "echo mine > /workspace/x")
        made = await world.fork(box, 3)
        ids = [child.sandbox_id for child in made.children]
        assert [child.started_from for child in made.children] == ["fork"] * 3
        told = [await world.sh(one, "cat /workspace/x /etc/machine-id") for one in [box, *ids]]
        assert {text.split()[0] for text in told} == {"mine"}
        assert len({text.split()[1] for text in told}) == 4
        names = [await world.sh(one, "cat /etc/hostname") for one in ids]
        assert names == ids

    async def test_the_parent_goes_on_and_its_standstill_is_told(self, world, box):
        pid = await world.sh(box, SLEEPER)
        made = await world.fork(box)
        assert made.standstill_ms > 0
        assert await world.sh(box, "pgrep sleep") == pid

    async def test_the_capture_is_gone_and_the_child_lives_without_it(self, world, box):
        child = (await world.fork(box)).children[0].sandbox_id
        assert list(world.engine.places.captures.iterdir()) == []
        await world.pause(child)
        assert await world.sh(child, "echo on") == "on"
        assert (await world.fork(child)).children[0].state == "running"

    async def test_a_paused_parent_stays_paused(self, world, box):
        await world.sh(box, "echo mine > /workspace/x")
        await world.pause(box)
        made = await world.fork(box)
        assert made.standstill_ms == 0
        assert world.look(box).state == "paused"
        assert await world.sh(made.children[0].sandbox_id, "cat /workspace/x") == "mine"

    async def test_a_child_that_fails_is_named_and_the_others_live(self, world, box, monkeypatch):
        ids = [sandbox_id() for _ in range(3)]
        clone = world.driver.clone

        async def unlucky(machine, capture):
            if machine.id == ids[1]:
                raise VmmFailed("out of luck")
            await clone(machine, capture)

        monkeypatch.setattr(world.driver, "clone", unlucky)
        children = [Child(sandbox_id=one) for one in ids]
        made = await world.host.fork(box, fresh("op"), "key_test", children)
        assert [child.state for child in made.children] == ["running", "stopped", "running"]
        assert "out of luck" in made.children[1].ending.reason
        assert list(world.engine.places.lives(ids[1])) == []
        assert world.engine.admission.taken.sandboxes == 3

    async def test_a_repeat_is_answered_and_makes_no_more(self, world, box):
        op, children = fresh("op"), [Child(sandbox_id=sandbox_id()) for _ in range(2)]
        first = await world.host.fork(box, op, "key_test", children)
        assert await world.host.fork(box, op, "key_test", children) == first
        assert len(holders(world.settings.home)) == 3

    async def test_destroying_the_parent_meanwhile_leaves_no_child(self, world, box, monkeypatch):
        begun = asyncio.Event()
        clone = world.driver.clone

        async def slow(machine, capture):
            await clone(machine, capture)
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(world.driver, "clone", slow)
        forking = asyncio.ensure_future(world.fork(box, 2))
        await begun.wait()
        await world.destroy(box)
        with pytest.raises(SandboxStopped):
            await forking
        assert holders(world.settings.home) == []
        assert list(world.engine.places.captures.iterdir()) == []

    async def test_children_must_differ_and_there_must_be_one(self, world, box):
        for children in ([], [Child(sandbox_id=sandbox_id())] * 2):
            with pytest.raises(InvalidRequest):
                await world.host.fork(box, fresh("op"), "key_test", children)


class TestDestroy:
    @pytest.mark.parametrize("state", ["running", "paused"])
    async def test_nothing_is_left_but_the_ledger(self, world, box, state):
        await world.snapshot(box)
        if state == "paused":
            await world.pause(box)
        seen = await world.destroy(box)
        assert (seen.state, seen.ending.cause) == ("stopped", "request")
        await until(lambda: not holders(world.settings.home))
        kept = {file.name for file in world.folder(box).rglob("*")}
        assert kept == {"machine.json", "ledger.jsonl"}
        assert "hello" not in (world.folder(box) / "machine.json").read_text()
        assert list(world.engine.places.snapshots.iterdir()) == []
        assert world.network.taken == set()

    async def test_it_overrules_a_create(self, world, monkeypatch):
        begun = asyncio.Event()

        async def slow(machine, capture):
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(world.driver, "clone", slow)
        wish = order()
        creating = asyncio.ensure_future(world.host.create(wish))
        await begun.wait()
        assert (await world.destroy(wish.sandbox_id)).state == "stopped"
        with pytest.raises(SandboxStopped):
            await creating
        assert world.network.taken == set()
        assert world.engine.admission.taken.sandboxes == 0

    async def test_it_overrules_what_hangs(self, world, box, monkeypatch):
        begun = asyncio.Event()

        async def hang(machine):
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(world.driver, "suspend", hang)
        pausing = asyncio.ensure_future(world.pause(box))
        resuming = asyncio.ensure_future(world.resume(box))
        await begun.wait()
        await world.destroy(box)
        for act in (pausing, resuming):
            with pytest.raises(SandboxStopped):
                await act

    @pytest.mark.parametrize("state", ["running", "paused"])
    async def test_it_overrules_the_last_step_of_a_rollback(self, world, box, monkeypatch, state):
        kept = await world.snapshot(box)
        if state == "paused":
            await world.pause(box)
        old, kill, begun = world.box(box).machine(), world.driver.kill, asyncio.Event()

        async def hang(machine):
            if machine.id == old.id and not begun.is_set():
                begun.set()
                await asyncio.Event().wait()
            await kill(machine)

        monkeypatch.setattr(world.driver, "kill", hang)
        going_back = asyncio.ensure_future(world.rollback(box, kept))
        await until(begun.is_set)
        await world.destroy(box)
        with pytest.raises(SandboxStopped):
            await going_back
        assert world.network.taken == set()
        assert world.engine.admission.taken.sandboxes == 0
        await until(lambda: holders(world.settings.home) == [])

    async def test_a_destroyed_one_can_be_asked_nothing_but_why(self, world, box):
        await world.destroy(box)
        assert (await world.destroy(box)).state == "stopped"
        for act in (world.pause, world.resume, world.fork):
            with pytest.raises(SandboxStopped):
                await act(box)
        with pytest.raises(SandboxStopped):
            await world.sh(box, "true")
        last = ledger.read(world.folder(box))[-1]
        assert (last.state, last.cause, last.actor) == ("stopped", "request", "key_test")

    async def test_its_template_is_free_then(self, world, box):
        with pytest.raises(TemplateInUse):
            await world.host.drop_template(TEMPLATE)
        await world.destroy(box)
        await world.host.drop_template(TEMPLATE)


class TestEnd:
    async def test_a_machine_that_dies_is_stopped_within_five_seconds_and_says_why(
        self, world, box
    ):
        await world.host.stats(box)
        await world.sh(box, "echo last words >> /proc/1/fd/1")
        said = await world.host.console(box, 20)
        kill_machine(world, box)
        async with asyncio.timeout(5):
            await until(lambda: world.look(box).state == "stopped")
        ending = world.look(box).ending
        assert (ending.cause, ending.signal, ending.exit_code) == ("vmm_exit", 9, None)
        assert "SIGKILL" in ending.reason
        assert "last words" in said
        assert ending.console_tail[: len(said)] == said
        assert "the guest used" in ending.memory_pressure
        assert ending.recoverable_until is not None
        assert ledger.read(world.folder(box))[-1].detail["reason"] == ending.reason
        assert world.network.taken == set()
        assert world.engine.admission.taken.sandboxes == 0

    async def test_an_exec_under_way_is_told_of_it(self, world, box):
        running = asyncio.ensure_future(world.sh(box, "sleep 1000"))
        await until(lambda: world.box(box).uses)
        await world.sh(box, "true")
        kill_machine(world, box)
        with pytest.raises(SandboxStopped, match="SIGKILL"):
            await asyncio.wait_for(running, 60)

    async def test_its_disk_boots_as_a_new_sandbox(self, world, box):
        await world.sh(box, "echo kept > /workspace/x")
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        seen = await world.host.create(order(recover_from=box))
        assert seen.started_from == "recovery"
        assert await world.sh(seen.sandbox_id, "cat /workspace/x") == "kept"
        assert await world.sh(seen.sandbox_id, "cat /etc/hostname") == seen.sandbox_id

    async def test_destroying_it_removes_the_kept_disk(self, world, box):
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        await world.destroy(box)
        assert list(world.engine.places.lives(box)) == []
        with pytest.raises(NotFound):
            await world.host.create(order(recover_from=box))

    async def test_its_console_can_still_be_read(self, world, box):
        before = await world.host.console(box, 5)
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        assert (await world.host.console(box, 5))[: len(before)] == before

    async def test_a_resume_that_used_the_state_up_is_an_end(self, world, box, monkeypatch):
        await world.pause(box)

        async def gone(_):
            raise VmmFailed("QEMU says internal-error")

        monkeypatch.setattr(world.driver, "resume", gone)
        monkeypatch.setattr(world.driver, "suspend", gone)
        with pytest.raises(Unavailable, match="internal-error"):
            await world.resume(box)
        seen = world.look(box)
        assert (seen.state, seen.cause, seen.operation) == ("stopped", "vmm_exit", None)
        assert "used up: QEMU says internal-error" in seen.ending.reason
        assert seen.ending.recoverable_until is not None
        assert world.engine.admission.taken.sandboxes == 0

    async def test_a_resume_that_failed_before_leaves_it_paused(self, world, box, monkeypatch):
        await world.pause(box)

        async def refused(_):
            raise VmmFailed("no room for it")

        with monkeypatch.context() as patched:
            patched.setattr(world.driver, "resume", refused)
            with pytest.raises(Unavailable, match="no room"):
                await world.resume(box)
        assert world.look(box).state == "paused"
        assert await world.sh(box, "echo on") == "on"


class TestRecoverPaused:
    async def test_when_its_state_fits_no_more(self, world, box):
        await world.sh(box, "echo hours of work > /workspace/x; sync")
        await world.pause(box)
        actor = world.box(box)
        actor.books.note(replace(actor.record, fingerprint={"vmm": "another"}))
        with pytest.raises(SnapshotUnfit) as refused:
            await world.resume(box)
        assert f"runtools sandbox recover {box}" in refused.value.hint
        seen = await world.host.create(order(recover_from=box))
        assert seen.started_from == "recovery"
        assert await world.sh(seen.sandbox_id, "cat /workspace/x") == "hours of work"
        assert await world.sh(seen.sandbox_id, "cat /etc/hostname") == seen.sandbox_id
        assert world.look(box).state == "paused"

    async def test_it_cannot_go_on_while_its_disk_is_copied(self, world, box, monkeypatch):
        await world.pause(box)
        copying, go_on = asyncio.Event(), asyncio.Event()
        real = machines.files.copy_sparse

        async def slow(*what):
            copying.set()
            await go_on.wait()
            await real(*what)

        monkeypatch.setattr(machines.files, "copy_sparse", slow)
        making = asyncio.ensure_future(world.host.create(order(recover_from=box)))
        await asyncio.wait_for(copying.wait(), 60)
        waking = asyncio.ensure_future(world.resume(box))
        await asyncio.sleep(0)
        assert world.look(box).state == "paused"
        go_on.set()
        assert (await making).state == "running"
        assert (await waking).state == "running"

    async def test_one_whose_kept_disk_was_removed_meanwhile_is_not_found(
        self, world, box, monkeypatch
    ):
        kill_machine(world, box)
        await until(lambda: world.look(box).state == "stopped")
        begun, go_on, bring_up = asyncio.Event(), asyncio.Event(), create_act.bring_up

        async def late(*what):
            begun.set()
            await go_on.wait()
            return await bring_up(*what)

        monkeypatch.setattr(create_act, "bring_up", late)
        making = asyncio.ensure_future(world.create(recover_from=box))
        await until(begun.is_set)
        await world.host.prune(ended=True, warm=False)
        go_on.set()
        with pytest.raises(NotFound, match="not kept"):
            await making

    async def test_one_that_was_destroyed_meanwhile_leaves_nothing(self, world, box, monkeypatch):
        await world.pause(box)
        copying = asyncio.Event()

        async def endless(*_):
            copying.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(machines.files, "copy_sparse", endless)
        making = asyncio.ensure_future(world.host.create(order(recover_from=box)))
        await asyncio.wait_for(copying.wait(), 60)
        await world.destroy(box)
        with pytest.raises(RunToolsError):
            await asyncio.wait_for(making, 60)
        assert world.engine.admission.taken.sandboxes == 0


class TestRestart:
    async def test_what_runs_is_adopted_with_its_processes(self, world, settings):
        box = await world.create()
        pid = await world.sh(box, SLEEPER)
        await world.host.stop()
        world.__init__(settings)
        await world.host.start()
        assert world.look(box).state == "running"
        assert await world.sh(box, "pgrep sleep") == pid
        assert world.engine.admission.taken.sandboxes == 1

    @pytest.mark.parametrize(("times", "state"), [(2, "running"), (10**9, "paused")])
    async def test_a_network_that_cannot_be_had_again_ends_nothing(
        self, world, settings, monkeypatch, times, state
    ):
        box = await world.create()
        pid = await world.sh(box, SLEEPER)
        await world.host.stop()
        world.__init__(settings)
        adopt, failures = world.network.adopt, itertools.count()

        async def sometimes(*slot):
            if next(failures) < times:
                raise Unavailable("the firewall is busy")
            await adopt(*slot)

        monkeypatch.setattr(world.network, "adopt", sometimes)
        await world.host.start()
        assert world.look(box).state == state
        assert len(world.network.taken) == (1 if state == "running" else 0)
        assert await world.sh(box, "pgrep sleep") == pid
        assert world.engine.admission.taken.sandboxes == 1

    @pytest.mark.parametrize("failure", [VmmFailed("no space"), OSError("no space")])
    async def test_one_without_a_network_that_cannot_be_saved_runs_on(
        self, world, settings, monkeypatch, failure
    ):
        box = await world.create()
        pid = await world.sh(box, SLEEPER)
        await world.host.stop()
        world.__init__(settings)

        async def fail(*_):
            raise Unavailable("not now")

        async def fail_to_save(_):
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(world.network, "adopt", fail)
            patch.setattr(world.driver, "suspend", fail_to_save)
            await world.host.start()
        assert world.look(box).state == "running"
        assert world.box(box).slots() == set()
        with pytest.raises(HostUnavailable, match="could not be adopted"):
            await world.sh(box, "true")
        await world.pause(box)
        assert await world.sh(box, "pgrep sleep") == pid
        assert len(world.network.taken) == 1

    async def test_what_died_meanwhile_is_stopped_with_its_reason(self, world, settings):
        box = await world.create()
        await world.host.stop()
        kill_machine(world, box)
        world.__init__(settings)
        await world.host.start()
        async with asyncio.timeout(60):
            while world.look(box).ending is None:
                await asyncio.sleep(0.01)
        assert world.look(box).ending.signal == 9

    async def test_a_shutdown_pauses_and_waits_until_that_is_durable(self, world, settings):
        box = await world.create()
        await world.host.shutdown()
        world.__init__(settings)
        await world.host.start()
        seen = world.look(box)
        assert (seen.state, seen.cause, seen.durable) == ("paused", "shutdown", True)
        assert await world.sh(box, "echo on") == "on"

    async def test_a_reboot_ends_what_ran_and_keeps_what_was_paused(self, world, settings):
        ran, slept = await world.create(), await world.create()
        await world.pause(slept)
        await until(lambda: world.look(slept).durable)
        await world.host.stop()
        kill_machine(world, ran)
        (settings.host_home / "boot-id").write_text("another boot")
        world.__init__(settings)
        await world.host.start()
        assert world.look(ran).ending.cause == "host_restart"
        assert world.look(slept).state == "paused"
        assert world.network.taken == set()

    @pytest.mark.parametrize("act", ["resume", "fork", "create"])
    async def test_a_shutdown_leaves_nothing_running_of_what_was_under_way(
        self, world, settings, monkeypatch, act
    ):
        box = await world.create()
        if act == "resume":
            await world.pause(box)
        begun, go_on = asyncio.Event(), asyncio.Event()
        name = {"resume": "resume", "fork": "capture", "create": "clone"}[act]
        real = getattr(world.driver, name)

        async def slow(*what):
            begun.set()
            await go_on.wait()
            return await real(*what)

        monkeypatch.setattr(world.driver, name, slow)
        making = {
            "resume": lambda: world.resume(box),
            "fork": lambda: world.fork(box, 2),
            "create": world.create,
        }[act]
        acting = asyncio.ensure_future(making())
        await begun.wait()
        going = asyncio.ensure_future(world.host.shutdown())
        await until(lambda: world.engine.stopping)
        with pytest.raises(HostUnavailable):
            await world.create()
        waiting = asyncio.ensure_future(world.snapshot(box))
        go_on.set()
        with pytest.raises(HostUnavailable):
            await waiting
        await asyncio.gather(acting, return_exceptions=True)
        await going
        boxes = list(world.engine.actors.values())
        assert len(boxes) == {"resume": 1, "fork": 3, "create": 2}[act]
        assert {one.state for one in boxes} == {"paused"}
        assert not [one for one in boxes if await world.driver.is_live(one.machine())]
        assert all(one.record.durable for one in boxes)
        world.__init__(settings)
        await world.host.start()

    async def test_a_fork_that_was_cut_off_tells_its_standstill(self, world, settings, monkeypatch):
        box = await world.create()
        children = [Child(sandbox_id=sandbox_id()) for _ in range(2)]
        clone, capture, cloned = world.driver.clone, world.driver.capture, []

        async def still(*what):
            await capture(*what)
            return 12.5

        async def only_one(machine, source):
            cloned.append(machine.id)
            if len(cloned) > 1:
                await asyncio.Event().wait()
            await clone(machine, source)

        monkeypatch.setattr(world.driver, "capture", still)
        monkeypatch.setattr(world.driver, "clone", only_one)
        monkeypatch.setattr(service, "_GRACE_SECONDS", 0)
        forking = asyncio.ensure_future(world.host.fork(box, "op_cut_off", "key_test", children))
        await until(lambda: len(cloned) == 2 and world.look(cloned[0]).state == "running")
        await world.host.stop()
        await asyncio.wait({forking})
        world.__init__(settings)
        await world.host.start()
        again = await world.host.fork(box, "op_cut_off", "key_test", children)
        assert again.standstill_ms == 12.5
        assert sorted(child.state for child in again.children) == ["running", "stopped"]

    async def test_after_a_reboot_a_state_that_was_not_durable_is_not_trusted(
        self, world, settings, monkeypatch
    ):
        box = await world.create()
        await world.sh(box, "echo kept > /root/file")
        with monkeypatch.context() as patch:
            patch.setattr(durable, "make", lambda _: asyncio.Event().wait())
            assert not (await world.pause(box)).durable
            await world.host.stop()
        (settings.host_home / "boot-id").write_text("another boot")
        world.__init__(settings)
        await world.host.start()
        seen = world.look(box)
        assert (seen.state, seen.ending.cause) == ("stopped", "host_restart")
        assert "before its saved state was durable" in seen.ending.reason
        assert seen.ending.recoverable_until is not None
        again = await world.create(recover_from=box)
        assert await world.sh(again, "cat /root/file") == "kept"

    async def test_what_is_said_to_be_durable_is_journaled_as_such_before(
        self, world, box, monkeypatch
    ):
        said, real = [], world.engine.reports.publish

        def publish(record, queue=None):
            if record.durable and record.state == "paused":
                said.append(synced[:])
            return real(record, queue)

        synced, sync = [], durable._sync_some

        def sync_some(paths):
            synced.append(journal.load(world.folder(box)).durable)
            sync(paths)

        monkeypatch.setattr(world.engine.reports, "publish", publish)
        monkeypatch.setattr(durable, "_sync_some", sync_some)
        await world.pause(box)
        await until(lambda: world.look(box).durable)
        assert said == [[True]]

    async def test_a_machine_that_no_journal_owns_is_ended(self, world, settings):
        box = await world.create()
        await world.host.stop()
        folder = world.folder(box)
        away = settings.home / "away"
        (folder / "machine.json").rename(away)
        folder.joinpath("machine.json").write_bytes(
            away.read_bytes().replace(b'"uid":70000', b'"uid":70009')
        )
        world.__init__(settings)
        await world.host.start()
        await until(lambda: world.look(box).ending is not None)
        assert holders(settings.home) == []

    async def test_a_damaged_journal_is_left_alone(self, world, settings):
        box = await world.create()
        await world.host.stop()
        whole = (world.folder(box) / "machine.json").read_bytes()
        (world.folder(box) / "machine.json").write_bytes(whole[:-20])
        world.__init__(settings)
        await world.host.start()
        assert box not in world.engine.actors
        assert list(world.engine.places.lives(box)) == [1]
        assert len(holders(world.settings.home)) == 1  # its machine runs on
        other = await world.create()
        assert not world.box(other).uids() & world.engine.kept_uids
        assert len(world.engine.kept_uids) == 1
        await world.destroy(other)
        await world.host.stop()
        (settings.host_home / "sandboxes" / box / "machine.json").write_bytes(whole)
        world.__init__(settings)
        await world.host.start()
        assert await world.sh(box, "echo on") == "on"


async def test_acts_wait_for_their_turn_and_moves_are_checked(world, box):
    await world.pause(box)
    with pytest.raises(IllegalMove):
        await world.box(box).perform(lambda: _create_again(world.box(box)))


async def _create_again(box):
    from runtools.platform.core.states import Act
    from runtools.platform.host.engine.why import Why

    async with box.act(Act.CREATE, Why("request", "key_test")):
        pass


def test_a_world_is_a_host(settings):
    assert World(settings).host is not None
