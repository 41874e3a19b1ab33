"""Tables and migrations say the same, on every engine."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)

from runtools.errors import Conflict
from runtools.platform.api.schema import check, config, metadata, upgrade
from runtools.platform.boot.api import rekey
from runtools.platform.boot.strays import serve as strays
from runtools.platform.kit.config import Settings
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


def _furnish(conn: Connection) -> dict[str, int]:
    """A row in every table that has none, made from what its columns are; how many rows there are."""
    there = MetaData()
    there.reflect(conn)
    counts = {}
    for table in there.sorted_tables:
        if table.name == "alembic_version":
            continue
        if conn.scalar(select(func.count()).select_from(table)) == 0:
            conn.execute(insert(table).values({one.name: _value(conn, one) for one in table.c}))
        counts[table.name] = int(conn.scalar(select(func.count()).select_from(table)) or 0)
    return counts


def _value(conn: Connection, column: Column[Any]) -> Any:
    for key in column.foreign_keys:
        return conn.scalar(select(key.column).limit(1))
    kind = column.type
    if isinstance(kind, JSON):
        return {}
    if isinstance(kind, Boolean):
        return True
    return 1 if isinstance(kind, Integer | Float) else "x"


def test_the_migrations_are_one_chain() -> None:
    """Two that were made beside each other have one number, or one before them: neither lands unseen."""
    script = ScriptDirectory.from_config(config())
    files = sorted(Path(script.versions).glob("[0-9]*.py"))
    numbers = [file.name.partition("_")[0] for file in files]
    assert numbers == [f"{n:04}" for n in range(1, len(files) + 1)]
    said = [re.findall(r"^(?:down_)?revision = (.*)$", file.read_text(), re.M) for file in files]
    before = ["None", *(f'"{number}"' for number in numbers)]
    assert said == [[f'"{number}"', down] for number, down in zip(numbers, before, strict=False)]
    assert script.get_heads() == numbers[-1:]


class TestUpgrade:
    async def test_each_step_keeps_what_is_there(self, url: str) -> None:
        """From the first schema on, with a row in every table before each step."""
        db = Database(url)
        script = ScriptDirectory.from_config(config())
        steps = [one.revision for one in script.walk_revisions()][::-1]
        before: dict[str, int] = {}
        for step in steps:

            def move(conn: Connection, to: str = step) -> dict[str, int]:
                settings = config()
                settings.attributes["connection"] = conn
                command.upgrade(settings, to)
                return _furnish(conn)

            after = await db.write(move)
            gone = {name for name in before if after.get(name, 0) < before[name]}
            assert gone == set(), step
            before = after
        await db.close()
        assert set(before) == set(metadata.tables)
        assert len(steps) > 5

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


class TestOtherVersions:
    async def test_an_older_database_is_not_worked_with_before_it_is_brought_up_to_date(
        self, url: str, tmp_path: Path
    ) -> None:
        """As a rekey between an upgrade and `runtools up`: it is told so, and nothing is blamed."""
        settings, db = Settings(home=tmp_path, database_url=url), Database(url)
        for revision, said in ((None, "missing"), ("0026", "0026")):
            if revision is not None:
                await db.write(_to, revision)
            for act in (rekey(settings), strays(settings, "list", None, None)):
                with pytest.raises(Conflict, match=f"its schema is {said}") as caught:
                    await act
                assert "runtools up" in str(caught.value.hint)
        assert not (tmp_path / "api" / "master.key").exists()
        await upgrade(db)
        await check(db)
        await db.close()

    async def test_a_newer_database_is_left_alone(self, url: str) -> None:
        def newer(conn: Connection) -> None:
            conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))

        db = Database(url)
        await upgrade(db)
        await db.write(newer)
        for act in (upgrade(db), check(db)):
            with pytest.raises(Conflict, match=r"newer version.*9999"):
                await act
        await db.close()


class TestLeftovers:
    async def test_what_runs_have_noted_is_kept(self, url: str) -> None:
        db = Database(url)

        def noted(conn: Connection) -> None:
            _to(conn, "0033")
            _furnish(conn)  # one run, and what it stands on
            there = MetaData()
            there.reflect(conn, only=["runs"])
            said = {"servers_left": 3, "commands_left": ["x.1.0", "x.2.0"]}
            conn.execute(update(there.tables["runs"]).values(said))

        await db.write(noted)
        await upgrade(db)
        found = await db.read(lambda conn: conn.execute(text(_LEFT)).all())
        assert sorted(map(tuple, found)) == [
            ("x", "mcp.x.", "x", "x", 3),
            ("x", "x.1.0", "x", "x", None),
            ("x", "x.2.0", "x", "x", None),
        ]
        await db.close()


_LEFT = "SELECT sandbox_id, name, org_id, run_id, lease FROM leftovers"


class TestOperators:
    async def test_of_several_current_master_keys_the_newest_stays(self, url: str) -> None:
        db, keys = Database(url), metadata.tables["master_keys"]

        def two(conn: Connection) -> None:
            settings = config()
            settings.attributes["connection"] = conn
            command.upgrade(settings, "0029")
            for at, key in enumerate(("old", "new", "odd")):
                since = datetime(2026, 1, 1 + at % 2, tzinfo=UTC)
                row = {"id": key, "proof": "x", "state": "current", "since": since}
                conn.execute(insert(keys).values(**row))

        await db.write(two)
        await upgrade(db)
        found = await db.read(lambda conn: conn.execute(select(keys.c.id, keys.c.state)).all())
        assert sorted(map(tuple, found)) == [
            ("new", "current"),
            ("odd", "retiring"),
            ("old", "retiring"),
        ]
        await db.close()

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
