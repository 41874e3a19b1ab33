"""How long a sandbox may be idle or run can be changed while it is there."""

from __future__ import annotations

import pytest

from runtools.errors import NotFound, SandboxStopped


def limits(world, box):
    """What the watch over idle sandboxes goes by."""
    order = world.box(box).record.order
    return order.idle_timeout_seconds, order.max_lifetime_seconds


async def test_a_change_outlives_a_restart(world, settings):
    box = await world.create()
    await world.host.set_limits(box, 7, 70)
    assert limits(world, box) == (7, 70)
    await world.host.stop()
    world.__init__(settings)
    await world.host.start()
    assert limits(world, box) == (7, 70)


async def test_a_paused_one_is_not_woken(world, box):
    await world.pause(box)
    await world.host.set_limits(box, 7, None)
    assert world.look(box).state == "paused"
    await world.resume(box)
    assert limits(world, box) == (7, None)


async def test_a_rollback_does_not_take_it_back(world, box):
    kept = await world.snapshot(box)
    await world.host.set_limits(box, 7, None)
    await world.rollback(box, kept)
    assert limits(world, box) == (7, None)


async def test_a_stopped_one_and_nobody(world, box):
    await world.destroy(box)
    with pytest.raises(SandboxStopped):
        await world.host.set_limits(box, 7, None)
    with pytest.raises(NotFound):
        await world.host.set_limits("sandbox-zzzzzzzzzzzz", 7, None)
