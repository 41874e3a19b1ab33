"""What the SDK can do the command line can: a command calls each method, or it is said why not.

The commands are read, not run: a call is `rt.agents.version(…)` in their source. What they do is tried
elsewhere.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from runtools import RunTools
from runtools.cli.app import app

CLI = Path(__file__).resolve().parents[3] / "src/runtools/cli"

# A method that no command calls -> the command that does its work otherwise (None: a person has no use for
# it there), and why.
OTHERWISE: dict[str, tuple[str | None, str]] = {
    "close": (None, "a command ends with its process"),
    "agents.run": ("agent run", "it begins one with `start` and shows the events as they come"),
    "agents.stream": ("agent run", "it begins one with `start` and shows the events as they come"),
    "invitations.accept": (None, "its link is opened in a browser, where a password is chosen"),
    "models.endpoints.get": ("endpoint list", "it shows each whole"),
    "orgs.current": ("auth status", "it says in which one acts"),
    "sandboxes.events": ("sandbox why", "changes of one, with reasons; programs have `webhook`"),
    "standing_sandboxes.get": ("sandbox standing", "it shows each whole"),
    "templates.get": ("template show", "it shows all versions, the newest too"),
    "threads.get": ("threads show", "it shows what was said; `threads list` the rest"),
}


def managers(of: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, of
    for name, value in vars(of).items():
        if not name.startswith("_") and type(value).__module__.startswith("runtools.sdk."):
            yield from managers(value, (*path, name))


def methods() -> set[str]:
    with RunTools("rt_test_0", "http://127.0.0.1:1") as rt:
        return {
            ".".join((*path, name))
            for path, manager in managers(rt)
            for name, _ in inspect.getmembers(type(manager), inspect.isfunction)
            if not name.startswith("_")
        }


def calls() -> set[str]:
    """``agents.version`` for each `rt.agents.version(…)` of the commands; the client is called rt."""
    found = set()
    for file in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                client, _, method = ast.unparse(node.func).partition(".")
                found |= {method} if client == "rt" else set()
    return found


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield " ".join(words)
        return
    for name, inner in command.commands.items():
        yield from commands(inner, (*words, name))


def test_every_method_is_called_by_a_command_or_it_is_said_why_not():
    assert sorted(methods() - calls() - OTHERWISE.keys()) == []


@pytest.mark.parametrize("method", OTHERWISE)
def test_what_is_said_of_the_others_holds(method):
    instead, why = OTHERWISE[method]
    assert why
    assert method in methods()
    assert method not in calls(), "a command calls it by now"
    assert instead is None or instead in set(commands(get_command(app)))
