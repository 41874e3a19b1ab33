"""A host of local machines that can be killed, and a saga played on it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runtools.platform.core.ports.host import BuildOrder, Sizes
from runtools.testing.crash.house import House, maker
from runtools.testing.crash.look import kill_machines
from runtools.testing.crash.saga import Saga
from runtools.testing.forks import Maker
from runtools.testing.local_template import LocalTemplates

TEMPLATE = "tpl_crash"
SIZES = Sizes(vcpus=1, memory_mb=256, disk_mb=1024)
SETTINGS = {"RUNTOOLS_DISK_HEADROOM_MB": "1", "RUNTOOLS_MEMORY_MB": "65536"}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of templates with one that is ready."""
    folder = tmp_path_factory.mktemp("templates")

    async def build() -> None:
        templates = LocalTemplates(folder)
        order = BuildOrder(
            version_id=TEMPLATE, slug="base", version=1, recipe="base-debian", apt=[], run=None
        )
        await templates.build(order)
        assert [line async for line in templates.build_log(TEMPLATE, 0)]

    asyncio.run(build())
    return folder


@pytest.fixture(scope="session")
def hosts() -> Iterator[Maker]:
    made = maker("local")
    yield made
    made.close()


@pytest.fixture
async def house(tmp_path: Path, built: Path, hosts: Maker) -> AsyncIterator[House]:
    shutil.copytree(built, tmp_path / "host" / "templates")
    house = House(tmp_path, hosts, SETTINGS)
    yield house
    await house.close()
    kill_machines(tmp_path, "local")


@pytest.fixture
def saga(house: House) -> Saga:
    seed = int(os.environ.get("RT_TEST_SEED") or random.randrange(2**32))
    print(f"RT_TEST_SEED={seed}")  # noqa: T201
    return Saga(house, "local", TEMPLATE, SIZES, random.Random(seed))
