"""Hardware isolation that is required: by a request, or by the operator for every sandbox of a host."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from tests.flow.host.conftest import World, order, until

from runtools.errors import IsolationUnavailable
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.host.engine import registry
from runtools.platform.host.engine.why import Why

EMULATED = {"required": "hardware", "available": "emulated"}


def give(world, isolation):
    """What the host's accelerator gives from now on: as after a move of its home to another machine."""
    world.engine.capabilities = replace(world.engine.capabilities, isolation=isolation)


class TestSetting:
    @pytest.fixture
    async def strict(self, settings):
        """A host whose operator requires it."""
        made = World(replace(settings, require_isolation="hardware"))
        await made.host.start()
        yield made
        await made.close()

    async def test_refuses_every_create_under_emulation(self, strict):
        wish = order()
        with pytest.raises(IsolationUnavailable, match="the setting require_isolation") as refused:
            await strict.host.create(wish)
        assert refused.value.details == EMULATED
        assert not strict.folder(wish.sandbox_id).exists()

    async def test_refuses_a_resume_under_emulation(self, strict):
        give(strict, "hardware")
        box = await strict.create()
        await strict.pause(box)
        give(strict, "emulated")
        with pytest.raises(IsolationUnavailable, match="the setting require_isolation"):
            await strict.resume(box)
        assert strict.look(box).state == "paused"

    @pytest.mark.parametrize("state", ["running", "paused"])
    async def test_refuses_what_else_starts_a_machine_under_emulation(self, strict, state):
        give(strict, "hardware")
        box = await strict.create()
        kept = await strict.snapshot(box)
        if state == "paused":
            await strict.pause(box)
        give(strict, "emulated")
        lives = list(strict.engine.places.lives(box))
        for start in (strict.fork(box), strict.rollback(box, kept)):
            with pytest.raises(IsolationUnavailable, match="the setting require_isolation"):
                await start
        assert strict.look(box).state == state
        assert list(strict.engine.actors) == [box]
        assert list(strict.engine.places.lives(box)) == lives


class TestRestart:
    """The host part was killed, and its operator has come to require it since."""

    @pytest.fixture
    async def restarted(self, world, settings):
        async def restart():
            await world.host.stop()
            world.__init__(replace(settings, require_isolation="hardware"))
            return world

        return restart

    async def test_what_runs_emulated_is_paused_and_what_does_not_runs_on(
        self, world, restarted, monkeypatch
    ):
        emulated, hardware = await world.create(), await world.create()
        world.box(hardware).books.note(replace(world.box(hardware).record, isolation="hardware"))
        await restarted()
        suspend, attempts = world.driver.suspend, itertools.count()

        async def not_at_first(machine):
            if next(attempts) == 0:
                raise VmmFailed("no space")
            await suspend(machine)

        monkeypatch.setattr(world.driver, "suspend", not_at_first)
        await world.host.start()
        await until(lambda: world.look(emulated).state == "paused")
        seen = world.look(emulated)
        assert (seen.cause, seen.actor, next(attempts)) == ("isolation", "platform", 2)
        assert (world.look(hardware).state, world.look(hardware).operation) == ("running", None)
        for start in (world.resume(emulated), world.sh(emulated, "true")):
            with pytest.raises(IsolationUnavailable, match="the setting require_isolation"):
                await start

    async def test_a_create_that_was_under_way_is_not_begun_anew(self, world, restarted):
        wish = order()
        registry.enroll(world.engine, wish, Why("request", "key_test", wish.op, "create"))
        await restarted()
        await world.host.start()
        await until(lambda: world.look(wish.sandbox_id).state == "stopped")
        ending = world.look(wish.sandbox_id).ending
        assert ending.cause == "start_failed"
        assert "the setting require_isolation requires hardware isolation" in ending.reason


class TestRequest:
    async def test_what_was_made_under_hardware_is_resumed_under_nothing_less(self, world):
        give(world, "hardware")
        box = await world.create(require_isolation="hardware")
        assert world.look(box).isolation == "hardware"
        await world.pause(box)
        give(world, "emulated")
        for wake in (world.resume(box), world.sh(box, "true")):
            with pytest.raises(IsolationUnavailable, match="the request") as refused:
                await wake
            assert refused.value.details == EMULATED
        assert world.look(box).state == "paused"
        give(world, "hardware")
        assert await world.sh(box, "echo on") == "on"

    async def test_what_did_not_ask_for_it_is_resumed_anywhere(self, world):
        give(world, "hardware")
        box = await world.create()
        await world.pause(box)
        give(world, "emulated")
        assert (await world.resume(box)).isolation == "emulated"
