"""Worlds for tests of the host: one with a built template, one with a running service on it."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from pathlib import Path

import pytest

from runtools.platform.core.ports.host import BuildOrder, Child, CreateOrder, Guest, Sizes
from runtools.platform.host.service import HostService
from runtools.platform.kit.config import Settings
from runtools.sdk.shapes.inside import ExecRequest
from runtools.testing.local_driver import LocalDriver
from runtools.testing.local_template import LocalTemplates
from runtools.testing.local_warm import LocalWarm
from runtools.testing.null_network import NullNetwork

TEMPLATE = "tpl_base"
DEADLINE = 30.0
_numbers = itertools.count(1)


def fresh(what):
    """An id or op that no other test uses."""
    return f"{what}{next(_numbers)}"


def sandbox_id():
    return f"sandbox-{next(_numbers):012d}"


def order(**changes):
    fields = {
        "op": fresh("op"),
        "sandbox_id": sandbox_id(),
        "actor": "key_test",
        "template_version_id": TEMPLATE,
        "sizes": Sizes(vcpus=2, memory_mb=1024, disk_mb=2048),
        "guest": Guest(env={"GREETING": "hello"}),
        "internet": True,
        "idle_timeout_seconds": 600,
        "max_lifetime_seconds": None,
        "require_isolation": None,
        "queue": True,
    }
    return CreateOrder(**{**fields, **changes})


async def until(condition, what="it"):
    """Wait until the condition holds; it may be a coroutine function."""
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                held = condition()
                if asyncio.iscoroutine(held):
                    held = await held
                if held:
                    return held
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come about in {DEADLINE:g} s") from None


@pytest.fixture(scope="session")
def seed(tmp_path_factory):
    """A host's home in which a template was built and warmed."""
    folder = tmp_path_factory.mktemp("seed")

    async def build():
        templates = LocalTemplates(folder / "templates")
        wish = BuildOrder(
            version_id=TEMPLATE,
            slug="base-debian",
            version=1,
            recipe="base-debian",
            apt=[],
            run=None,
        )
        await templates.build(wish)
        async for _ in templates.build_log(TEMPLATE, 0):
            pass
        warm = LocalWarm(folder / "warm", LocalDriver())
        await warm.make(templates.image(TEMPLATE), 2, 1024)

    asyncio.run(build())
    return folder


@pytest.fixture
def home(tmp_path, seed):
    """A home with a template, and nothing else yet."""
    # Disks are sparse and must stay so.
    subprocess.run(["cp", "-a", "--sparse=always", seed, tmp_path / "host"], check=True)
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def settings(home):
    return Settings(home=home, disk_headroom_mb=1)


class World:
    """A host service with words for tests. `again` is what a restart of it would be."""

    def __init__(self, settings, clock=None):
        self.settings = settings
        self.driver = LocalDriver(settings.host_home)
        self.network = NullNetwork()
        self.warm = LocalWarm(settings.host_home / "warm", self.driver)
        templates = LocalTemplates(settings.host_home / "templates")
        self.host = HostService(
            settings, self.driver, self.network, templates, self.warm, 70_000, clock
        )

    @property
    def engine(self):
        return self.host.engine

    def folder(self, box_id):
        return self.engine.places.sandbox(box_id)

    def box(self, box_id):
        return self.engine.actor(box_id)

    async def create(self, **changes):
        seen = await self.host.create(order(**changes))
        assert seen.state == "running", seen
        return seen.sandbox_id

    async def sh(self, box_id, command):
        """What a shell line prints."""
        result = await self.host.exec(box_id, ExecRequest(command=command, process_id=fresh("prc")))
        assert result.exit_code == 0, result
        return result.stdout.strip()

    async def pause(self, box_id):
        return await self.host.pause(box_id, fresh("op"), "key_test")

    async def resume(self, box_id):
        return await self.host.resume(box_id, fresh("op"), "key_test")

    async def destroy(self, box_id):
        return await self.host.destroy(box_id, fresh("op"), "key_test")

    async def snapshot(self, box_id):
        name = fresh("snp_")
        await self.host.snapshot(box_id, fresh("op"), "key_test", name)
        return name

    async def rollback(self, box_id, snapshot_id):
        return await self.host.rollback(box_id, fresh("op"), "key_test", snapshot_id)

    async def fork(self, box_id, count=1):
        children = [Child(sandbox_id=sandbox_id()) for _ in range(count)]
        return await self.host.fork(box_id, fresh("op"), "key_test", children)

    def look(self, box_id):
        return self.box(box_id).latest()

    async def close(self):
        for box_id in list(self.engine.actors):
            await self.destroy(box_id)
        await self.host.stop()


@pytest.fixture
async def world(settings):
    """A host service over local machines, started."""
    made = World(settings)
    await made.host.start()
    yield made
    await made.close()


@pytest.fixture
async def box(world):
    """A running sandbox."""
    return await world.create()


def holders(home: Path):
    """The pids of the processes that hold local machines of this home."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if any(b"local_holder" in word for word in words) and any(
                word.startswith(bytes(home)) for word in words
            ):
                found.append(int(folder.name))
    return found
