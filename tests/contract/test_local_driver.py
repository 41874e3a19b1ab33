from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtools.testing.contracts.driver import DriverContract
from runtools.testing.contracts.driver_crash import DriverCrashContract, chance
from runtools.testing.contracts.driver_rig import DriverRig
from runtools.testing.local_rig import make_local_rig

__all__ = ["chance"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DriverRig]:
    rig = await make_local_rig(tmp_path)
    yield rig
    await rig.close()


class TestLocalDriver(DriverContract):
    pass


class TestKilledLocalDriver(DriverCrashContract):
    pass
