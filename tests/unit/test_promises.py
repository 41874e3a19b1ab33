"""Every promise of SPECIFICATION.md and docs/security.md names tests, and those are there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("SPECIFICATION.md", "docs/security.md")

# `- **S12.** text …`, up to the next promise, heading or empty line.
_PROMISE = re.compile(r"^- \*\*([A-Z]+\d+)\.\*\* (.*?)(?=^- |^#|^$|\Z)", re.M | re.S)
_TEST = re.compile(r"`([\w/]+\.py(?:::\w+)*)`")


def promises(text: str) -> list[tuple[str, list[str]]]:
    """Each promise's number and the tests that it names."""
    return [(number, _TEST.findall(body)) for number, body in _PROMISE.findall(text)]


def faults(text: str, known: Mapping[str, object]) -> list[str]:
    """What is wrong with a page."""
    found = promises(text)
    counted = Counter(number for number, _ in found)
    return [
        *(f"{number} is given {n} times" for number, n in counted.items() if n > 1),
        *(f"{number} names no test" for number, tests in found if not tests),
        *(f"{one} is not there" for one in _TEST.findall(text) if one not in known),
    ]


def _tests_of(name: str, classes: Mapping[str, ast.ClassDef], seen: frozenset[str]) -> set[str]:
    """The tests of a class, those of its bases included."""
    if name not in classes or name in seen:
        return set()
    node = classes[name]
    mine = {one.name for one in node.body if _is_test(one)}
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    return mine.union(*(_tests_of(base, classes, seen | {name}) for base in bases))


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


def _classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def known_tests() -> Mapping[str, object]:
    """Every test, and every class that has one, as ``path below tests::Class::test``."""
    folder = ROOT / "tests"
    shared: dict[str, ast.ClassDef] = {}
    for file in sorted((ROOT / "src/runtools/testing/contracts").glob("*.py")):
        shared |= _classes(ast.parse(file.read_text()))
    found: dict[str, object] = {}
    for file in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(file.read_text())
        where = file.relative_to(folder).as_posix()
        classes = shared | _classes(tree)
        found |= dict.fromkeys(f"{where}::{one.name}" for one in tree.body if _is_test(one))
        for name in _classes(tree):
            if name.startswith("Test") and (tests := _tests_of(name, classes, frozenset())):
                found |= dict.fromkeys(f"{where}::{name}::{test}" for test in tests)
                found[f"{where}::{name}"] = None
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_is_held_by_tests_that_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    assert faults(text, known_tests()) == []
    assert promises(text)


@pytest.mark.parametrize("page", PAGES)
def test_no_promise_is_written_in_a_form_that_is_not_seen(page: str) -> None:
    text = (ROOT / page).read_text()
    assert len(re.findall(r"^\s*[-*] \*\*[A-Z]+\d+", text, re.M)) == len(promises(text))


def _page(*lines: str) -> str:
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (_page("- **S1.** Said, not held."), ["S1 names no test"]),
        (_page("- **S1.** Said.", "", "`a.py::test_b`"), ["S1 names no test"]),
        (_page("- **S1.** Held.", "  `a.py::test_gone`"), ["a.py::test_gone is not there"]),
        (_page("- **S1.** Held.", "  `a.py`"), ["a.py is not there"]),
        (
            _page("- **S1.** a", "  `a.py::test_b`", "- **S1.** b", "  `a.py::test_b`"),
            ["S1 is given 2 times"],
        ),
        (_page("- **S1.** a", "  `a.py::test_b`", "- **S2.** b"), ["S2 names no test"]),
        (_page("- **S1.** Held.", "  `a.py::test_b`"), []),
    ],
)
def test_what_is_wrong_is_seen(text: str, wrong: Iterable[str]) -> None:
    assert faults(text, {"a.py::test_b": None}) == wrong


def test_inherited_tests_count() -> None:
    known = known_tests()
    assert "contract/test_hosts.py::TestHostService::test_a_command_is_run_once" in known
    assert "contract/test_hosts.py::TestHostService::test_b" not in known
    assert "vm/test_qemu_driver.py::TestQemuDriver" in known


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = Counter(one.name.partition("-")[0] for one in (ROOT / "docs/decisions").glob("*.md"))
    assert [number for number, n in numbers.items() if n > 1] == []
