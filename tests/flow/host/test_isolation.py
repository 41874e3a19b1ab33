"""Hardware isolation that is required: by a request, or by the operator for every sandbox of a host."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.flow.host.conftest import World, order

from runtools.errors import IsolationUnavailable

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
