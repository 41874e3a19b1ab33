"""A new project that deploys as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from runtools.errors import Conflict, InvalidRequest

_FILES = {
    "pyproject.toml": """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["runtools>=0.1"]

[tool.runtools]
project = "{name}"
""",
    "agents/hello.py": """\
from runtools import define_agent

define_agent(
    slug="hello",
    name="Hello",
    model="demo",
    system_prompt="You write small programs, run them and say what came out.",
    tools=["word-count"],
    sandbox="dev-env",
)
""",
    "tools/word_count.py": '''\
from runtools import define_tool


def count(text: str) -> dict[str, int]:
    """Count the words and lines of a text.

    Args:
        text: what is counted.
    """
    return {{"words": len(text.split()), "lines": len(text.splitlines())}}


define_tool(name="word-count", description="Counts words.", actions={{"count": count}})
''',
    "sandboxes/dev_env.py": """\
from runtools import define_sandbox

define_sandbox(
    slug="dev-env",
    template="base-debian",
    setup=["mkdir -p /workspace/src"],
)
""",
    ".gitignore": "__pycache__/\n.venv/\n",
}


def scaffold(root: Path) -> list[Path]:
    """Make a project in a folder, which may exist; returns its files.

    Raises:
        Conflict: one of its files is there already; nothing was written.
        InvalidRequest: it is no folder, or its name cannot become a project's.
    """
    root = root.resolve()
    if root.exists() and not root.is_dir():
        raise InvalidRequest(f"{root} is no folder", hint="name one, which may be new")
    name = re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-")[:63].rstrip("-")
    if not name:
        raise InvalidRequest(f"{root.name!r} cannot be a project's name: it has no letter or digit")
    there = [place for place in _FILES if (root / place).exists()]
    if there:
        raise Conflict(
            f"{root} has {', '.join(there)} already; nothing was written",
            hint="choose an empty folder",
        )
    for place, text in _FILES.items():
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(name=name) if "{" in text else text)
    return [root / place for place in _FILES]
