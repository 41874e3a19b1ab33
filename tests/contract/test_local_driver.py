from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtools.platform.core.ports.driver import Machine
from runtools.testing.contracts.driver import DriverContract
from runtools.testing.contracts.driver_crash import DriverCrashContract, chance
from runtools.testing.contracts.driver_rig import DriverRig
from runtools.testing.local_driver import LocalDriver
from runtools.testing.local_place import Place
from runtools.testing.local_template import make_image
from runtools.testing.null_network import NullNetwork

__all__ = ["chance"]


def first_process(machine: Machine) -> int:
    pid = Place(machine.folder / "vmm").first()
    assert pid is not None
    return pid


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DriverRig]:
    rig = DriverRig(
        make=LocalDriver,
        factory="runtools.testing.local_driver:LocalDriver",
        image=await make_image(tmp_path / "image", "tpl_local", "base-local", 1),
        folder=tmp_path,
        network=NullNetwork(),
        vmm=first_process,
    )
    yield rig
    await rig.close()


class TestLocalDriver(DriverContract):
    pass


class TestKilledLocalDriver(DriverCrashContract):
    pass
