"""docs/cli.md and docs/sdk.md name all there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from typer.main import get_command

from runtools.cli.app import app
from runtools.cli.sandbox import create
from runtools.sdk.shapes import sandboxes as shapes
from runtools.sdk.sync.client import RunTools
from runtools.sdk.sync.files import Files
from runtools.sdk.sync.processes import Process, Processes
from runtools.sdk.sync.sandbox import Sandbox
from runtools.sdk.sync.sandboxes import Sandboxes
from runtools.sdk.sync.templates import Templates

ROOT = Path(__file__).resolve().parents[3]
CLI = (ROOT / "docs/cli.md").read_text()
SDK = (ROOT / "docs/sdk.md").read_text()


# "from runtools import …" is Python, and a guest of the probe says of itself that it passed.
_TYPED = re.compile(r"\bruntools (?!import\b|itself\b|probe\b)([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")


def words_of_cli() -> list[str]:
    found: set[str] = set()
    rest = [get_command(app)]
    while rest:
        command = rest.pop()
        for child in getattr(command, "commands", {}).values():
            found.add(child.name)
            rest.append(child)
        for param in command.params:
            options = [*param.opts, *param.secondary_opts]
            long = [name for name in options if name.startswith("--")]
            if long and not any(name in CLI for name in long):
                found.update(long)
    return sorted(found - {"--show-completion"})


@pytest.mark.parametrize("word", words_of_cli())
def test_every_command_and_option_is_documented(word: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", CLI)


def test_what_messages_tell_people_to_type_is_there() -> None:
    groups = {
        name: set(getattr(command, "commands", {}))
        for name, command in getattr(get_command(app), "commands", {}).items()
    }
    wrong = []
    for file in (ROOT / "src/runtools").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            for said in _TYPED.finditer(node.value):
                name, word = said.groups()
                known = groups.get(name)
                if known is None or (known and word is not None and word not in known):
                    wrong.append(f"{file.name}:{node.lineno}: {said[0]}")
    assert wrong == []


@pytest.mark.parametrize(
    "kind", [RunTools, Sandboxes, Sandbox, Files, Processes, Process, Templates]
)
def test_every_method_of_the_sdk_is_documented(kind: type) -> None:
    names = [n for n, _ in inspect.getmembers(kind, inspect.isfunction) if n[0] != "_"]
    missing = [name for name in names if not re.search(rf"\b{name}\b", SDK)]
    assert missing in ([], ["close"])


@pytest.mark.parametrize("page", ["README.md", "docs/sdk.md"])
def test_the_example_shown_is_the_one_that_is_run(page: str) -> None:
    example = (ROOT / "examples/quickstart.py").read_text().partition('"""\n\n')[2]
    assert f"```python\n{example}```" in (ROOT / page).read_text()


def test_defaults_said_twice_are_the_same() -> None:
    for name in ("VCPUS", "DISK_MB", "IDLE_TIMEOUT_SECONDS"):
        assert getattr(create, f"DEFAULT_{name}") == getattr(shapes, f"DEFAULT_{name}")
