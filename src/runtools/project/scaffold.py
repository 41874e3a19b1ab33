"""A new project that deploys as it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from runtools.errors import Conflict, InvalidRequest
from runtools.project.folder import CONFIG, PLURALS, definition_files, settings_table

_IGNORED = ".gitignore"

_TABLE = """\
[tool.runtools]
project = "{name}"
"""
_FILES = {
    CONFIG: """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["runtools>=0.1"]

"""
    + _TABLE,
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
    _IGNORED: "__pycache__/\n.venv/\n",
}


def scaffold(root: Path) -> list[Path]:
    """Make a project in a folder, which may exist; returns the files that were written.

    What is there is left as it is: a ``pyproject.toml`` gets the table that it lacks at its end.

    Raises:
        Conflict: it is a project already, one of its files is there, or a deploy would run what is there;
            nothing was written.
        InvalidRequest: it is no folder, or its name cannot become a project's.
    """
    root = root.resolve()
    if root.exists() and not root.is_dir():
        raise InvalidRequest(f"{root} is no folder", hint="name one, which may be new")
    name = re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-")[:63].rstrip("-")
    if not name:
        raise InvalidRequest(f"{root.name!r} cannot be a project's name: it has no letter or digit")
    texts = {
        place: text.format(name=name) if "{" in text else text for place, text in _FILES.items()
    }
    if (root / _IGNORED).exists():
        del texts[_IGNORED]
    config = root / CONFIG
    added = _added(config, _TABLE.format(name=name)) if config.exists() else None
    if added is not None:
        del texts[CONFIG]
    _refuse_what_is_there(root, texts)
    for place, text in texts.items():
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if added is None:
        return [root / place for place in texts]
    with config.open("ab") as end:
        end.write(added)
    return [config, *(root / place for place in texts)]


def _refuse_what_is_there(root: Path, texts: Iterable[str]) -> None:
    tops = [root / top for top in PLURALS.values()]
    there = [place for place in texts if (root / place).exists()]
    there += [top.name for top in tops if top.exists() and not top.is_dir()]
    if there:
        raise Conflict(
            f"{root} has {', '.join(there)} already; nothing was written",
            hint="choose another folder: runtools init NAME makes a new one",
        )
    for top in tops:
        found = next(definition_files(top), None)
        if found is not None:
            raise Conflict(
                f"{root} has {found.relative_to(root)}, and a deploy would run it: all in {top.name}/"
                " is taken for definitions; nothing was written",
                hint="make the project in a folder of its own (runtools init NAME makes one), or write"
                " [tool.runtools] with other `folders` yourself",
            )


def _added(config: Path, table: str) -> bytes:
    """What goes to the end of a ``pyproject.toml``, so that it is a project's.

    Raises:
        Conflict: it is one already.
        InvalidRequest: it is no TOML, or has `tool` in a form to which nothing can be added.
    """
    if settings_table(config) is not None:
        raise Conflict(
            f"{config} has [tool.runtools] already; nothing was written",
            hint="it is a project: runtools deploy",
        )
    there = config.read_bytes()
    gap = "" if not there.strip() else "\n" if there.endswith(b"\n") else "\n\n"
    added = f"{gap}{table}".replace("\n", "\r\n" if b"\r\n" in there else "\n").encode()
    try:
        tomllib.loads((there + added).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest(
            f"{config}: [tool.runtools] cannot be added at its end: {exc}",
            hint="write the table yourself where `tool` stands",
        ) from None
    return added
