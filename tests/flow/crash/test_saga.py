"""Fifty random kills of a host in the middle of everything: nothing is lost, half-made or owned twice.

``RUNTOOLS_SEED`` (printed) plays a run again, ``RUNTOOLS_ROUNDS`` makes it longer.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtools.platform.core.ports.host import BuildOrder, Sizes
from runtools.testing.crash.house import House, maker
from runtools.testing.crash.saga import Saga
from runtools.testing.local_template import LocalTemplates

TEMPLATE = "tpl_crash"
SIZES = Sizes(vcpus=1, memory_mb=256, disk_mb=1024)
SETTINGS = {"RUNTOOLS_DISK_HEADROOM_MB": "1", "RUNTOOLS_MEMORY_MB": "65536"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    templates = LocalTemplates(tmp_path / "host" / "templates")
    order = BuildOrder(
        version_id=TEMPLATE, slug="base", version=1, recipe="base-debian", apt=[], run=None
    )
    await templates.build(order)
    assert [line async for line in templates.build_log(TEMPLATE, 0)]
    async with maker("local") as made:
        house = House(tmp_path, made, SETTINGS)
        yield house
        await house.close()


async def test_random_kills_lose_nothing(house: House) -> None:
    seed = int(os.environ.get("RUNTOOLS_SEED") or random.randrange(2**32))
    print(f"RUNTOOLS_SEED={seed}")  # noqa: T201
    saga = Saga(house, "local", TEMPLATE, SIZES, random.Random(seed))
    await saga.play(int(os.environ.get("RUNTOOLS_ROUNDS", "50")))
    print(f"{saga.acts} acts")  # noqa: T201
