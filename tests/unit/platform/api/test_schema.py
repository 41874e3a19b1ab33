"""Tables and migrations say the same, on every engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from runtools.platform.api.schema import config, metadata, upgrade
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


class TestOperators:
    async def test_the_keys_of_the_first_start_become_the_operators(self, url: str) -> None:
        db = Database(url)
        await db.write(_to, "0008")
        keys = {"first key": [], "another first key": [], "ci": [], "mon": ["host:read", "files:*"]}
        await db.write(_fill, keys)
        await upgrade(db)
        found = await db.read(lambda conn: dict(conn.execute(text(_SCOPES)).all()))
        assert {name: json.loads(scopes) for name, scopes in found.items()} == {
            "first key": ["*", "platform:*"],
            "another first key": ["*", "platform:*"],
            "ci": [],
            "mon": ["platform:read", "files:*"],
        }
        await db.close()


_SCOPES = "SELECT name, CAST(scopes AS VARCHAR(500)) FROM api_keys"


def _to(conn: Connection, revision: str) -> None:
    settings = config()
    settings.attributes["connection"] = conn
    command.upgrade(settings, revision)


def _fill(conn: Connection, keys: dict[str, list[str]]) -> None:
    conn.execute(text("INSERT INTO orgs VALUES ('org_a', 'a', 0, 0)"))
    for name, scopes in keys.items():
        row = {"id": f"key_{name}"[:24], "name": name, "scopes": json.dumps(scopes)}
        conn.execute(
            text(
                "INSERT INTO api_keys (id, org_id, name, prefix, digest, op, created_at, scopes)"
                " VALUES (:id, 'org_a', :name, '', :name, :name, 0, :scopes)"
            ),
            row,
        )
