"""The api over a fake host, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from runtools.platform.kit.db import Database
from runtools.testing import api_world, postgres
from runtools.testing.api_world import World
from runtools.testing.fake_worker import fake_worker
from runtools.testing.made_once import sqlite_url
from runtools.testing.run_stage import Stage, furnish
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import work


@pytest.fixture(params=postgres.ENGINES)
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database, on every engine there is."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
        return
    server, template = request.getfixturevalue("cluster")
    name = server.create(template)
    yield server.url(name)
    server.drop(name)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A running api on SQLite."""
    async with api_world.world(Database(sqlite_url(tmp_path)), tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def any_world(any_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A running api on every engine there is."""
    async with api_world.world(Database(any_url), tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def two(any_url: str, tmp_path: Path) -> AsyncIterator[tuple[Org, Org]]:
    """The org that came with the platform, and another one, on every engine there is."""
    async with both_of(any_url, tmp_path) as both:
        yield both


@asynccontextmanager
async def both_of(
    any_url: str, tmp_path: Path, *, checked: bool = True
) -> AsyncIterator[tuple[Org, Org]]:
    """The same on one engine; ``checked`` as for `api_world.world`."""
    said: dict[str, Any] = {"outbound_allow": "127.0.0.0/8", "checked": checked}
    made = api_world.world(Database(any_url), tmp_path, **said)
    async with made as world, await world.stranger() as http:
        me = (await http.get("/v1/me")).json()["data"]
        await world.build(by=http)
        both = Org(world, world.org, "amber", world.http), Org(world, me["orgId"], "birch", http)
        for org in both:
            await work(org, {})
        yield both


@pytest.fixture(scope="module", params=postgres.ENGINES)
def kept_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A fresh database for all tests of a module, on every engine there is."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path_factory.mktemp("kept"))
        return
    server, template = request.getfixturevalue("cluster")
    name = server.create(template)
    yield server.url(name)
    server.drop(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(
    kept_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[World, Org]]:
    """A running api with agents on it, for all tests of a module."""
    folder = tmp_path_factory.mktemp("platform")
    keys = {"ANTHROPIC_API_KEY": "of the machine"}
    made = api_world.world(
        Database(kept_url), folder, provider_keys=keys, outbound_allow="127.0.0.0/8"
    )
    async with made as world:
        yield world, await furnish(world)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(platform: tuple[World, Org]) -> AsyncIterator[Stage]:
    """The platform of the module, with a worker of the test's own."""
    world, org = platform
    async with fake_worker(world.url, world.token("worker"), slots=50) as worker:
        yield Stage(world, org, worker)
