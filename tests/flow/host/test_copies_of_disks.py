"""Acts that copy disks stay above the headroom: refused before they begin, or stopped on their way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading

import pytest
from tests.flow.host.conftest import World, holders, order, until

from runtools.errors import CapacityExhausted
from runtools.platform.core.ports.host import Sizes
from runtools.platform.host.disk import files
from runtools.platform.kit.config import Settings

HEADROOM_MB = 100
SMALL = Sizes(vcpus=1, memory_mb=64, disk_mb=2048)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")


class Lowest:
    """What was free at least, looked at every few milliseconds from another thread."""

    def __init__(self, folder):
        self.folder, self.mb = folder, float("inf")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self):
        while not self._over.wait(0.003):
            self.mb = min(self.mb, files.free_bytes(self.folder) / 2**20)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


@pytest.fixture
def small(home, seed):
    """A host on a disk of 420 MB; resized by a test."""
    folder = home / "host"
    subprocess.run(["mount", "-o", "size=420m", "-t", "tmpfs", "tmpfs", folder], check=True)
    subprocess.run(["cp", "-a", "--sparse=always", f"{seed}/.", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
async def world(home, small):
    made = World(Settings(home=home, disk_headroom_mb=HEADROOM_MB))
    await made.host.start()
    yield made
    await made.close()


@pytest.fixture
async def slept(world):
    """A paused sandbox with a disk of more than 70 MB: three copies of it are too many."""
    box = await world.create(sizes=SMALL)
    await world.sh(box, "head -c 70M /dev/urandom > /root/big")
    await world.pause(box)
    await until(lambda: world.look(box).durable)
    return box


async def fork(world, box):
    await world.fork(box, 3)


async def recover(world, box):
    for _ in range(4):
        await world.host.create(order(recover_from=box, queue=False, sizes=SMALL))


async def snapshot(world, box):
    for _ in range(4):
        await world.snapshot(box)


@pytest.mark.parametrize("act", [fork, recover, snapshot])
class TestAct:
    async def test_is_refused_before_the_disk_is_too_full(self, world, small, slept, act):
        free = files.free_bytes(small)
        with Lowest(small) as lowest, pytest.raises(CapacityExhausted) as refused:
            await act(world, slept)
        assert lowest.mb >= HEADROOM_MB
        assert refused.value.details["what"] == "MB of disk above the headroom"
        assert refused.value.details["asked"] > refused.value.details["free"]
        assert world.look(slept).state == "paused"
        if act is fork:  # nothing of it was begun
            assert files.free_bytes(small) >= free - 2**20
            assert world.engine.admission.taken.sandboxes == 0


async def test_one_that_grew_meanwhile_is_not_copied_to_its_end(world, small, slept, monkeypatch):
    monkeypatch.setattr(world.engine.admission, "need_disk", lambda _: None)  # as it was before
    with Lowest(small) as lowest, pytest.raises(CapacityExhausted, match="go on copying"):
        await snapshot(world, slept)
    assert lowest.mb >= HEADROOM_MB - 1
    assert world.look(slept).state == "paused"
    assert not list(world.engine.places.snapshots.glob(".*"))
    with pytest.raises(CapacityExhausted, match="go on copying"):
        await recover(world, slept)
    assert len(holders(world.settings.home)) == 1


async def test_a_running_one_that_cannot_be_forked_goes_on(world, small):
    box = await world.create(sizes=SMALL)
    await world.sh(box, "head -c 120M /dev/urandom > /root/big")
    with pytest.raises(CapacityExhausted):
        await world.fork(box, 4)
    assert world.look(box).state == "running"
    assert await world.sh(box, "stat -c %s /root/big") == str(120 << 20)


async def test_a_rollback_is_refused_and_the_sandbox_stays(world, small):
    box = await world.create(sizes=SMALL)
    await world.sh(box, "head -c 60M /dev/urandom > /root/big")
    name = await world.snapshot(box)
    await world.sh(box, "rm /root/big; echo now > /root/file")
    (small / "ballast").write_bytes(bytes(2**20))
    os.posix_fallocate(
        fd := os.open(small / "ballast", os.O_RDWR),
        0,
        files.free_bytes(small) - (HEADROOM_MB + 90) * 2**20,
    )
    os.close(fd)
    with pytest.raises(CapacityExhausted):
        await world.rollback(box, name)
    assert await world.sh(box, "cat /root/file") == "now"


async def test_what_is_held_for_one_act_is_not_given_to_another(world, slept, monkeypatch):
    begun, go_on = asyncio.Event(), asyncio.Event()
    real = files.copy_sparse

    async def slow(*what):
        begun.set()
        await go_on.wait()
        await real(*what)

    monkeypatch.setattr(files, "copy_sparse", slow)
    first = asyncio.ensure_future(world.host.create(order(recover_from=slept, sizes=SMALL)))
    await begun.wait()
    free_mb = files.free_bytes(world.engine.places.root) / 2**20 - HEADROOM_MB - 64
    with pytest.raises(CapacityExhausted), world.engine.admission.reserve(free_mb - 30):
        pass
    go_on.set()
    assert (await first).state == "running"
    with world.engine.admission.reserve(1):
        pass
