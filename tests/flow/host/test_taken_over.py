"""What a VMM that a guest has taken over leaves in its folder does not reach past its sandbox."""

from __future__ import annotations

import json
import logging
import os
import signal

import pytest
from tests.flow.host.conftest import until

from runtools.platform.host.disk import trees
from runtools.testing.nested import nest


def kill_machine(world, box_id):
    place = world.engine.places.life(box_id, 1) / "vmm"
    os.kill(json.loads((place / "holder.json").read_text())["first"], signal.SIGKILL)


@pytest.fixture(autouse=True)
def removed(tmp_path):
    """Nothing deep is left behind: pytest's own clearing away would fall over it."""
    yield
    trees.remove(tmp_path)


def leave_a_deep_tree(world, box):
    folder = world.engine.places.life(box, 1) / "vmm/box"
    folder.mkdir(parents=True, exist_ok=True)
    nest(folder, 1500)


async def test_it_can_be_destroyed(world, box):
    leave_a_deep_tree(world, box)
    await world.destroy(box)
    assert not (world.engine.places.life(box, 1) / "vmm").exists()


async def test_its_end_is_dealt_with(world, box):
    leave_a_deep_tree(world, box)
    kill_machine(world, box)
    await until(lambda: world.look(box).ending is not None)
    assert not (world.engine.places.life(box, 1) / "vmm").exists()


async def test_the_host_starts(world, box, settings):
    other = await world.create()
    leave_a_deep_tree(world, box)
    await world.host.stop()
    kill_machine(world, box)
    world.__init__(settings)
    await world.host.start()
    ending = await until(lambda: world.look(box).ending)
    assert ending.signal == 9
    assert await world.sh(other, "echo on") == "on"


async def test_the_host_starts_whatever_one_sandbox_makes_fail(
    world, box, settings, monkeypatch, caplog
):
    """Recovery of one is the edge of a loop: also an error that nobody foresaw ends there."""
    other = await world.create()
    await world.host.stop()
    world.__init__(settings)
    is_live = world.driver.is_live

    async def fails(machine):
        if machine.id == box:
            raise RecursionError("nobody foresaw it")
        return await is_live(machine)

    monkeypatch.setattr(world.driver, "is_live", fails)
    await world.host.start()
    monkeypatch.undo()
    assert f"{box} could not be recovered" in caplog.text
    assert await world.sh(other, "echo on") == "on"


async def test_disks_are_counted(world, box, caplog):
    other = await world.create()
    leave_a_deep_tree(world, box)
    with caplog.at_level(logging.WARNING):
        stored = {one.sandbox_id: one.size_bytes for one in await world.host.stored()}
    assert stored[box] > 0
    assert stored[other] > 0
    assert "holds more than is looked through" in caplog.text
    assert (await world.host.disk_use()).sandboxes_bytes >= stored[other]
