"""The code of a custom tool: its file, what it imports of the project, and its dependencies."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtools.project.folder import CONFIG
from runtools.sdk.shapes.definitions import MAX_SOURCE_BYTES, ToolSource

# Inline script metadata: https://packaging.python.org/en/latest/specifications/inline-script-metadata/
_BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


def bundle(root: Path, entry: Path) -> ToolSource:
    """What must travel for the tool to run elsewhere.

    Dependencies are those that the file declares itself (PEP 723), else the project's.

    Raises:
        ValueError: it is too large, its metadata are malformed, or what it imports is no Python.
    """
    files: dict[str, str] = {}
    waiting, size = [entry.resolve()], 0
    while waiting:
        file = waiting.pop()
        place = file.relative_to(root).as_posix()
        if place in files:
            continue
        size += file.stat().st_size
        if size > MAX_SOURCE_BYTES:
            raise ValueError(f"the tool and what it imports exceed {MAX_SOURCE_BYTES} bytes")
        try:
            files[place] = file.read_text()
            waiting += _imported(root, file, files[place])
        except (SyntaxError, UnicodeDecodeError) as exc:
            raise ValueError(f"{place} cannot be read: {exc}") from None
    place = entry.resolve().relative_to(root).as_posix()
    declared = _inline(files[place])
    if declared is None:
        declared = _project(root)
    source: dict[str, Any] = {
        "entry": place,
        "files": dict(sorted(files.items())),
        "dependencies": declared.get("dependencies", []),
        "requires_python": declared.get("requires-python"),
    }
    digest = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()
    return ToolSource.model_validate({**source, "digest": digest})


def _imported(root: Path, file: Path, text: str) -> Iterator[Path]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(root).parent.parts
            near = list(package[: len(package) - node.level + 1]) if node.level else []
            words = near + (node.module.split(".") if node.module else [])
            yield from _modules(root, words)
            for alias in node.names:
                yield from _modules(root, [*words, alias.name])


def _modules(root: Path, words: list[str]) -> Iterator[Path]:
    """The project's files that importing a name runs: each package on the way, then the module."""
    for length in range(1, len(words) + 1):
        place = root.joinpath(*words[:length])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file() and file.resolve().is_relative_to(root):
                yield file.resolve()


def _inline(text: str) -> dict[str, Any] | None:
    blocks = list(_BLOCK.finditer(text))
    if len(blocks) > 1:
        raise ValueError("it has more than one block of script metadata")
    if not blocks:
        return None
    lines = blocks[0]["content"].splitlines()
    text = "\n".join(line.removeprefix("# ").removeprefix("#") for line in lines)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"its script metadata are no TOML: {exc}") from None


def _project(root: Path) -> dict[str, Any]:
    table = tomllib.loads((root / CONFIG).read_text()).get("project", {})
    return table if isinstance(table, dict) else {}
