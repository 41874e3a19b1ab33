"""The fences of the design: what only certain modules may touch, read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "runtools"

# Fence -> (names nobody else may mention, path prefixes that may).
FENCES = {
    "processes": (
        {
            "subprocess",
            "asyncio.create_subprocess_exec",
            "asyncio.create_subprocess_shell",
            "os.system",
        },
        ("platform/kit/process.py", "project/loading.py", "guest/", "cli/", "testing/"),
    ),
    "environment": (
        {"os.environ", "os.getenv"},
        ("platform/kit/config.py", "sdk/settings.py", "guest/", "cli/", "testing/"),
    ),
    "wall clock": (
        {"time.time", "datetime.now", "datetime.utcnow", "datetime.datetime.now", "date.today"},
        ("platform/kit/clock.py", "guest/", "cli/", "sdk/", "testing/"),
    ),
    "a shell": ({"shell"}, ("guest/",)),
}


def _mentions(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.keyword) and node.arg == "shell":
            yield "shell"


def trespasses(name: str, source: str, where: str) -> set[str]:
    """The forbidden names that a module at `where` mentions."""
    names, allowed = FENCES[name]
    if where.startswith(allowed):
        return set()
    return names & set(_mentions(ast.parse(source)))


@pytest.mark.parametrize("name", FENCES)
def test_nobody_climbs_over(name):
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        where = file.relative_to(ROOT).as_posix()
        if bad := trespasses(name, file.read_text(), where):
            found[where] = bad
    assert found == {}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("processes", "import subprocess"),
        ("processes", "import asyncio\nasyncio.create_subprocess_exec('x')"),
        ("environment", "import os\nos.environ['A']"),
        ("wall clock", "import time\ntime.time()"),
        ("a shell", "run('x', shell=True)"),
    ],
)
def test_a_trespass_is_seen(name, source):
    assert trespasses(name, source, "platform/api/orgs/store.py")


def test_sql_is_written_in_stores_alone():
    found = []
    for file in sorted((ROOT / "platform").rglob("*.py")):
        where = file.relative_to(ROOT / "platform").as_posix()
        allowed = where.startswith(("kit/db", "api/migrations/")) or file.name in {
            "store.py",
            "tables.py",
        }
        if not allowed and "sqlalchemy" in {
            m.split(".")[0] for m in _mentions(ast.parse(file.read_text()))
        }:
            found.append(where)
    assert found == []
