from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from runtools.project.folder import Folder, find

Project = Callable[..., Folder]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Makes a project of the given files: path -> text."""

    def make(files: dict[str, str], table: str = "", head: str = "") -> Folder:
        config = f"{dedent(head)}\n[tool.runtools]\n{dedent(table)}"
        for place, text in {"pyproject.toml": config, **files}.items():
            file = tmp_path / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text))
        return find(tmp_path)

    return make
