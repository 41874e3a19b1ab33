"""The sync client is what the generator makes of the async one, and nothing is slow to import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import runtools
from runtools.sdk import files, sandbox, sandboxes, templates, transport
from runtools.sdk.sync import files as sync_files
from runtools.sdk.sync import sandbox as sync_sandbox
from runtools.sdk.sync import sandboxes as sync_sandboxes
from runtools.sdk.sync import templates as sync_templates
from runtools.sdk.sync import transport as sync_transport

ROOT = Path(__file__).resolve().parents[3]


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_nothing_has_drifted() -> None:
    done = run("scripts/generate_sync.py", "--check")
    assert done.returncode == 0, f"run scripts/generate_sync.py\n{done.stdout}{done.stderr}"


def test_the_overview_of_commands_has_not_drifted() -> None:
    done = run("scripts/generate_help.py", "--check")
    assert done.returncode == 0, f"run scripts/generate_help.py\n{done.stdout}{done.stderr}"


def test_the_overview_is_what_help_prints() -> None:
    from runtools.cli.overview import TEXT

    program = "import sys; from runtools.cli import main; sys.exit(main())"
    for word in ("--help", "-h"):
        done = run("-c", program, word)
        assert (done.returncode, done.stdout) == (0, TEXT)
    assert "  deploy " in TEXT


@pytest.mark.parametrize(
    ("asynchronous", "synchronous"),
    [
        (sandbox.AsyncSandbox, sync_sandbox.Sandbox),
        (sandboxes.AsyncSandboxes, sync_sandboxes.Sandboxes),
        (files.AsyncFiles, sync_files.Files),
        (templates.AsyncTemplates, sync_templates.Templates),
        (transport.AsyncTransport, sync_transport.Transport),
    ],
)
def test_both_can_do_the_same(asynchronous: type, synchronous: type) -> None:
    def public(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert public(asynchronous) == public(synchronous)
    assert not [n for n, m in inspect.getmembers(synchronous) if inspect.iscoroutinefunction(m)]


def test_nothing_async_is_left() -> None:
    for path in (ROOT / "src/runtools/sdk/sync").glob("*.py"):
        words = path.read_text().replace("async one", "").split()
        assert not {"await", "async"} & set(words), path.name


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import runtools", {"pydantic", "httpcore", "asyncio", "typer"}),
        ("import runtools.cli.overview", {"pydantic", "typer", "rich"}),
        ("from runtools import RunTools", {"typer", "rich", "httpx", "fastapi", "sqlalchemy"}),
        ("import runtools.cli.app", {"pydantic", "httpcore", "rich.console"}),
    ],
)
def test_only_what_is_needed_is_imported(statement: str, absent: set[str]) -> None:
    done = run("-c", f"import sys\n{statement}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not absent & set(done.stdout.split())


def test_every_public_name_is_there() -> None:
    for name in runtools.__all__:
        assert getattr(runtools, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = runtools.nonsense
