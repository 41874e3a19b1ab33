from __future__ import annotations

import re
import tomllib

import pytest

from runtools.errors import Conflict, InvalidRequest
from runtools.project.folder import find
from runtools.project.loading import load
from runtools.project.scaffold import scaffold


def test_the_folders_name_becomes_the_projects(tmp_path):
    scaffold(tmp_path / "My Project!")
    table = tomllib.loads((tmp_path / "My Project!" / "pyproject.toml").read_text())
    assert table["tool"]["runtools"]["project"] == "my-project"


def all_of(root):
    return {
        str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()
    }


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        ("pyproject.toml", "[tool.runtools]\n", "already"),
        ("agents/hello.py", "mine", "agents/hello.py already"),
        ("sandboxes", "no folder", "sandboxes already"),
        ("tools/release.py", "print('released')", "tools/release.py, and a deploy would run it"),
    ],
)
def test_nothing_is_written_over_and_nothing_run_that_is_no_definition(tmp_path, place, text, said):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(text)
    before = all_of(tmp_path)
    with pytest.raises(Conflict, match=f"{re.escape(said)}.*nothing was written"):
        scaffold(tmp_path)
    assert all_of(tmp_path) == before


@pytest.mark.parametrize("there", ["tool = {}\n", "tool.runtools = 3\n", "mine", "\xff"])
def test_a_pyproject_that_cannot_be_added_to_is_left_alone(tmp_path, there):
    (tmp_path / "pyproject.toml").write_bytes(there.encode("latin-1"))
    before = all_of(tmp_path)
    with pytest.raises((InvalidRequest, Conflict), match=r"pyproject\.toml"):
        scaffold(tmp_path)
    assert all_of(tmp_path) == before


def test_one_that_is_empty_becomes_a_projects(tmp_path):
    (tmp_path / "pyproject.toml").touch()
    scaffold(tmp_path)
    assert (tmp_path / "pyproject.toml").read_text().startswith("[tool.runtools]\n")


@pytest.mark.parametrize("end", ["\n", "", "\n[tool.ruff]  # mine\nline-length = 99\n\n", "\r\n"])
def test_a_clone_of_something_becomes_a_project_and_keeps_what_it_has(tmp_path, end):
    root = tmp_path / "Web Shop"
    root.mkdir()
    line = "\r\n" if end == "\r\n" else "\n"
    config = f'[project]{line}name = "shop"{line}dependencies = ["httpx"]{end}'.encode()
    (root / "pyproject.toml").write_bytes(config)
    (root / ".gitignore").write_bytes(b"*.pyc\n")
    (root / "tools").mkdir()
    (root / "tools/_lint.py").write_text("")
    written = {str(file.relative_to(root)) for file in scaffold(root)}
    assert written == {
        "pyproject.toml",
        "agents/hello.py",
        "tools/word_count.py",
        "sandboxes/dev_env.py",
    }
    assert (root / ".gitignore").read_bytes() == b"*.pyc\n"
    now = (root / "pyproject.toml").read_bytes()
    assert now.startswith(config)
    assert now.count(b"\n") == now.count(line.encode())
    table = tomllib.loads(now.decode())
    assert table["tool"]["runtools"] == {"project": "web-shop"}
    assert table["project"] == {"name": "shop", "dependencies": ["httpx"]}
    found = {one.slug: one.definition for one in load(find(root))}
    assert set(found) == {"hello", "word-count", "dev-env"}
    assert found["word-count"].source.dependencies == ["httpx"]


def test_a_name_without_letters(tmp_path):
    with pytest.raises(InvalidRequest, match="no letter or digit"):
        scaffold(tmp_path / "___")
