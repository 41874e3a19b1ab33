"""Two platforms with two homes on one machine: each takes and ends only what is its own."""

from __future__ import annotations

import subprocess

import pytest
from tests.flow.host.conftest import World, holders, order, until

from runtools.platform.kit.config import Settings


def copied(folder, into):
    subprocess.run(["cp", "-a", "--sparse=always", folder, into], check=True)


@pytest.fixture
async def other(tmp_path, seed):
    """A second platform, with a home of its own beside the first one's."""
    home = tmp_path / "other"
    home.mkdir()
    (home / "run").mkdir()
    copied(seed, home / "host")
    made = World(Settings(home=home, disk_headroom_mb=1))
    await made.host.start()
    yield made
    await made.close()


async def test_each_reclaims_only_its_own(world, other):
    wish = order()  # the same id in both: nothing but the home tells them apart
    mine = (await world.host.create(wish)).sandbox_id
    theirs = (await other.host.create(wish)).sandbox_id
    await world.sh(mine, "echo mine > /root/file")
    await other.sh(theirs, "echo theirs > /root/file")
    await world.host.stop()
    # The first one has lost every record: what runs of it is a leftover, and the other's is not.
    (world.folder(mine) / "machine.json").unlink()
    again = World(world.settings)
    world.__dict__.update(again.__dict__)
    await world.host.start()
    await until(lambda: not holders(world.settings.home / "host"))
    assert await other.sh(theirs, "cat /root/file") == "theirs"
    assert len(holders(other.settings.home)) == 1


async def test_one_goes_down_and_is_copied_back_while_the_other_works(world, other):
    mine, theirs = await world.create(), await other.create()
    await world.sh(mine, "echo mine > /root/file")
    kept = await world.snapshot(mine)
    await world.sh(mine, "echo later > /root/file")
    await world.host.shutdown()
    home = world.settings.host_home
    copy = home.with_name("copy")
    copied(home, copy)
    await other.sh(theirs, "echo theirs > /root/file")
    home.rename(home.with_name("gone"))
    copy.rename(home)
    world.__dict__.update(World(world.settings).__dict__)
    await world.host.start()
    assert world.look(mine).state == "paused"
    # A local machine's memory does not come back with the files; its disk and its snapshot do.
    again = await world.create(recover_from=mine)
    assert await world.sh(again, "cat /root/file") == "later"
    await world.rollback(mine, kept)
    assert await world.sh(mine, "cat /root/file") == "mine"
    assert await other.sh(theirs, "cat /root/file") == "theirs"
