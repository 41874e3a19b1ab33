from __future__ import annotations

import tomllib

import pytest

from runtools.errors import Conflict, InvalidRequest
from runtools.project.scaffold import scaffold


def test_the_folders_name_becomes_the_projects(tmp_path):
    scaffold(tmp_path / "My Project!")
    table = tomllib.loads((tmp_path / "My Project!" / "pyproject.toml").read_text())
    assert table["tool"]["runtools"]["project"] == "my-project"


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "pyproject.toml").write_text("mine")
    with pytest.raises(Conflict, match=r"pyproject\.toml"):
        scaffold(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["pyproject.toml"]
    assert (tmp_path / "pyproject.toml").read_text() == "mine"


def test_a_name_without_letters(tmp_path):
    with pytest.raises(InvalidRequest, match="no letter or digit"):
        scaffold(tmp_path / "___")
