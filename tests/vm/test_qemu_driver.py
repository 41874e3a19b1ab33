"""The QEMU driver on real machines: the contract of every driver, and what is QEMU's own.

Machines of the contract are clones of one warm capture, because a cold boot takes its time under
emulation; the cold boot itself, and machines that have memory of their own, have tests below.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtools.platform.core.ports.driver import Machine
from runtools.platform.host.drivers.qemu.driver import QemuDriver
from runtools.platform.host.drivers.qemu.place import Place
from runtools.platform.host.drivers.qemu.probe import Prober
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.platform.host.templates.images import Image
from runtools.testing.contracts.driver import DriverContract
from runtools.testing.contracts.driver_crash import DriverCrashContract, chance
from runtools.testing.contracts.driver_rig import DriverRig

__all__ = ["chance"]

pytestmark = pytest.mark.vm

_PATIENCE = 120.0
_STATE = Path(tempfile.gettempdir()) / f"runtools-test-{os.getuid()}-accelerator"
PROBER = Prober(_STATE)


@pytest.fixture(scope="session", autouse=True)
def platform() -> None:
    """None is needed here: the driver stands alone."""


def make_driver() -> QemuDriver:
    """A driver as a process of its own makes it, too."""
    return QemuDriver(PROBER)


def vmm_pid(machine: Machine) -> int:
    pids = Place(machine).pids()
    assert pids is not None
    return pids.vmm


def find_image() -> Image | None:
    """The newest template in the home of the tests."""
    home = Path(os.environ.get("RT_TEST_HOME", "/var/lib/runtools-test"))
    built = sorted((home / "host" / "templates").glob("*/kernel"), key=os.path.getmtime)
    if not built or os.geteuid() != 0:
        return None
    at = built[-1].parent
    return Image(at.name, "base-debian", 1, at, at / "base.erofs", at / "kernel", at / "initrd", 0)


@pytest.fixture(scope="session")
def image() -> Image:
    found = find_image()
    if found is None:
        pytest.skip("needs root and a template in RT_TEST_HOME")
    return found


@dataclass(frozen=True)
class Warm:
    capture: Path
    token: str


class QemuRig(DriverRig):
    """Machines that are live are clones of a warm capture."""

    warm: Warm

    async def live(self) -> Machine:
        disk = self.warm.capture / "overlay.img"
        machine = await self.machine(disk=disk, token=self.warm.token)
        await self.soon(self.driver.clone(machine, self.warm.capture))
        await self.answers(machine)
        return machine

    async def own_memory(self) -> Machine:
        """A live machine whose memory is its own: it was suspended once."""
        machine = await self.live()
        await self.soon(self.driver.suspend(machine))
        await self.soon(self.driver.resume(machine))
        await self.answers(machine)
        return machine


def make_rig(image: Image, folder: Path) -> QemuRig:
    return QemuRig(
        make=make_driver,
        factory=f"{__name__}:make_driver",
        image=image,
        folder=folder,
        network=NamespaceNetwork(f"t{secrets.token_hex(3)[:5]}", reserve=0),
        vmm=vmm_pid,
        patience=_PATIENCE,
        vcpus=1,
        memory_mb=512,
        rounds=4,
        window=0.25,
    )


async def _make_warm(image: Image, folder: Path) -> Warm:
    rig = make_rig(image, folder)
    try:
        machine = await DriverRig.live(rig)
        await rig.sh(machine, "sync")
        capture = await rig.captured(machine)
        return Warm(capture, machine.boot_token)
    finally:
        await rig.close()
        await rig.network.stop()


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder that VMMs can pass through, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="rt-qemu-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def warm(image: Image, home: Path) -> Warm:
    folder = home / "warm"
    folder.mkdir(mode=0o711)
    return asyncio.run(_make_warm(image, folder))


@pytest.fixture
async def rig(image: Image, warm: Warm, home: Path) -> AsyncIterator[QemuRig]:
    folder = Path(tempfile.mkdtemp(dir=home))
    folder.chmod(0o711)
    rig = make_rig(image, folder)
    rig.warm = warm
    await rig.driver.probe()
    yield rig
    await rig.close()
    await rig.network.stop()
    shutil.rmtree(folder)


class TestQemuDriver(DriverContract):
    pass


class TestKilledQemuDriver(DriverCrashContract):
    pass
