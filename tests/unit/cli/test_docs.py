"""docs/cli.md and docs/sdk.md name all there is."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
ROOT_COMMAND: Any = get_command(app)
GUIDES = {page.name: page.read_text() for page in (ROOT / "docs").glob("*.md")}
SHOWN = {"README.md": (ROOT / "README.md").read_text(), "dev": (ROOT / "dev").read_text(), **GUIDES}


def lines_shown() -> Iterator[tuple[str, str]]:
    """Each command line that a page shows, without what is said beside it."""
    for page, text in SHOWN.items():
        begins = r"^ {2,}(?:sudo )?|[`(]|&& |\| "
        for line in re.findall(
            rf"(?:{begins})(?:\S*bin/)?(runtools [a-z][^`\n]*)", text, re.MULTILINE
        ):
            yield page, re.split(r" #|   | \| | && ", line)[0]


def meant(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and what it is given."""
    command, rest = ROOT_COMMAND, words
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def words_of_cli() -> list[str]:
    found: set[str] = set()
    rest = [ROOT_COMMAND]
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
        for name, command in ROOT_COMMAND.commands.items()
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


def test_every_command_line_that_is_shown_can_be_typed() -> None:
    wrong, seen = [], 0
    for page, line in lines_shown():
        seen += 1
        command, rest = meant(line.split()[1:])
        ours = rest[: rest.index("--")] if "--" in rest else rest
        if hasattr(command, "commands") and ours and re.match("[a-z]", ours[0]):
            wrong.append(f"{page}: {line}: there is no command {ours[0]}")
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        given = {
            word.partition("=")[0].rstrip(",.);:") for word in ours if re.match("-+[a-z]", word)
        }
        wrong += [
            f"{page}: {line}: there is no {name}" for name in given - known - {"--help", "-h"}
        ]
    assert wrong == []
    assert seen > 100


def test_every_route_is_in_a_guide() -> None:
    document = json.loads((ROOT / "docs/openapi.json").read_text())
    text = nameless("".join(GUIDES.values()))
    missing = []
    for path in document["paths"]:
        words = nameless(path).removesuffix("/{}").strip("/").split("/")
        # A row of a table leaves out what the one before it has said.
        ends = ["/".join(words[at:]) for at in range(len(words)) if words[at] != "{}"]
        if not any(re.search(rf"/{re.escape(end)}(?![\w-])", text) for end in ends):
            missing.append(path)
    assert missing == []


def nameless(text: str) -> str:
    """The same with nothing but ``{}`` for what stands for something."""
    return re.sub(r"\{[^}]*\}", "{}", text)


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


def test_every_metric_is_in_the_guide() -> None:
    code = "".join(file.read_text() for file in (ROOT / "src/runtools/platform").rglob("*.py"))
    told = set(re.findall(r'\(\s*"(runtools_\w+)",', code))
    known = set(re.findall(r"`(runtools_\w+?)(?:_total)?`", GUIDES["observability.md"]))
    assert len(told) > 20
    assert known == told
