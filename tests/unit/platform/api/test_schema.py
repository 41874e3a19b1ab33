"""Tables and migrations say the same, on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from runtools.platform.api.schema import metadata, upgrade
from runtools.platform.kit.db import Database
from runtools.testing import postgres


@pytest.fixture(params=postgres.ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/x.db"
        return
    with postgres.cluster() as server:
        yield server.url(server.create())


class TestUpgrade:
    async def test_it_makes_what_the_tables_say(self, url: str) -> None:
        def differences(conn: Connection) -> list[Any]:
            return list(compare_metadata(MigrationContext.configure(conn), metadata))

        db = Database(url)
        await upgrade(db)
        assert await db.write(differences) == []
        await db.close()

    async def test_several_at_once_and_again(self, url: str) -> None:
        one, two = Database(url), Database(url)
        await asyncio.gather(upgrade(one), upgrade(two))
        await upgrade(one)
        names = await one.read(lambda conn: set(inspect(conn).get_table_names()))
        assert names == {*metadata.tables, "alembic_version"}
        await one.close()
        await two.close()
