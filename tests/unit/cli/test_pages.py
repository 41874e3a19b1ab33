"""What the pages tell people to type exists, and so does what they lead to."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from runtools.cli.app import app

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    file.relative_to(ROOT).as_posix()
    for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
)
SOURCES = [*PAGES, "dev", "examples/demo.py", "examples/agent.py"]

_INLINE = re.compile(r"`(?:sudo )?(?:\.venv/bin/)?(runtools [^`]+)`")
_TYPED = re.compile(r"^\s*(?:sudo )?(?:\.venv/bin/)?(runtools [a-z].*)$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def commands(text: str) -> Iterator[str]:
    """Every command of ours in a text, as it is typed."""
    yield from _INLINE.findall(text)
    for line in text.splitlines():
        typed = line.strip().removeprefix('"').removesuffix('",')  # in a program that shows it
        for part in re.split(r"\s(?:&&|\|)\s(?=.*runtools)", typed):
            if found := _TYPED.match(part):
                # What follows two spaces, or a lone #, is said about it.
                yield re.split(r"\s{2,}|\s#\s", found.group(1))[0]


@cache
def root() -> Any:
    return get_command(app)


def wrong(line: str) -> str | None:
    """What of a command there is not; None: it can be typed."""
    words = shlex.split(line)[1:]
    command = root()
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands") and words and re.match(r"[a-z]", words[0]):
        return f"{command.name} has no {words[0]}"
    known = {"-h", "--help"}.union(*([*p.opts, *p.secondary_opts] for p in command.params))
    for word in words[: words.index("--") if "--" in words else None]:
        if re.match(r"--?\w", word) and word.partition("=")[0].strip(",)") not in known:
            return f"{command.name} does not take {word}"
    return None


@pytest.mark.parametrize("page", SOURCES)
def test_what_is_shown_can_be_typed(page: str) -> None:
    found = list(commands((ROOT / page).read_text()))
    if page != "CHANGELOG.md":  # it tells of what was
        assert {line: why for line in found if (why := wrong(line))} == {}
    assert found or page not in ("README.md", "docs/cli.md", "dev")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("runtools sandbox begin X", "sandbox has no begin"),
        ("runtools fly", "runtools has no fly"),
        ("runtools sandbox create --colour red", "create does not take --colour"),
        ("runtools sandbox exec X -- prog --colour", None),
        ("runtools sandbox why X", None),
    ],
)
def test_what_cannot_be_typed_is_seen(line: str, why: str | None) -> None:
    assert wrong(line) == why


def anchors(text: str) -> set[str]:
    """The places of a page that a link can lead to."""
    made = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.M)
    }
    return made | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_dead(page: str) -> None:
    file = ROOT / page
    for link in _LINK.findall(file.read_text()):
        place, _, anchor = link.partition("#")
        target = file.parent / place if place else file
        if "://" not in link:
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text()), link
