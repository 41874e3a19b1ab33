"""What tests of several parts share: a server of PostgreSQL, where it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from runtools.platform.api.schema import upgrade
from runtools.platform.kit.db import Database
from runtools.testing import postgres


@pytest.fixture(scope="session")
def cluster() -> Iterator[tuple[postgres.Cluster, str]]:
    """A server, and the name of a database with the schema in it."""
    with postgres.cluster() as server:
        template = server.create()

        async def make() -> None:
            db = Database(server.url(template))
            await upgrade(db)
            await db.close()

        asyncio.run(make())
        yield server, template
