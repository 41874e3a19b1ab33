from __future__ import annotations

import pytest

from runtools.errors import InvalidRequest, NotFound
from runtools.project.folder import find


def test_a_folder_below_belongs_to_the_project(project):
    folder = project(
        {"agents/deep/x.py": ""}, 'org = "acme"\nproject = "web"\napi_url = "http://h"'
    )
    found = find(folder.root / "agents" / "deep")
    assert found.root == folder.root
    settings = found.settings
    assert (settings.org, settings.project, settings.api_url) == ("acme", "web", "http://h")


def test_a_pyproject_of_something_else_is_passed_by(project):
    folder = project({"agents/pyproject.toml": "[project]\nname = 'x'\n"})
    assert find(folder.root / "agents").root == folder.root


def test_so_is_a_broken_one_of_something_else(project):
    folder = project({"agents/pyproject.toml": "<<<<<<< HEAD\n[project\n"})
    assert find(folder.root / "agents").root == folder.root


def test_so_is_one_in_another_encoding(project):
    folder = project({"agents/x.py": ""})
    (folder.root / "agents/pyproject.toml").write_bytes(b"authors = 'Ren\xe9'\n")
    assert find(folder.root / "agents").root == folder.root


def test_in_another_encoding_a_project_has_no_settings(project):
    folder = project({})
    (folder.root / "pyproject.toml").write_bytes(b"[tool.runtools]\n# Ren\xe9\n")
    with pytest.raises(InvalidRequest, match="no TOML"):
        find(folder.root)


def test_one_that_may_not_be_read_is_passed_by_where_that_is_said(project):
    """A folder in its place, for root may read every file."""
    folder = project({"agents/pyproject.toml/x": ""})
    assert find(folder.root / "agents", past_closed=True).root == folder.root
    with pytest.raises(InvalidRequest, match="cannot be read"):
        find(folder.root / "agents")


def test_nowhere(tmp_path):
    with pytest.raises(NotFound, match="is in no project"):
        find(tmp_path)


def test_folders_can_be_named(project):
    folder = project({}, "[tool.runtools.folders]\nagents = 'src/agents'")
    assert folder.of("agent") == folder.root / "src/agents"
    assert folder.of("tool") == folder.root / "tools"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("colour = 'red'", r"tool\.runtools\.colour: there is no such field"),
        ("project = 'No Slug'", r"tool\.runtools\.project: lower-case letters"),
        ("project = 3", r"tool\.runtools\.project"),
        ("apiUrl = 'x'", r"tool\.runtools\.apiUrl"),
        ("api_url = 'x'", r"tool\.runtools\.api_url: 'x' is not an address"),
        ("api_url = 'http://u:p@h'", r"tool\.runtools\.api_url"),
        ("[tool.runtools.folders]\nagents = '../elsewhere'", "no folder of the project"),
        ("[tool.runtools.folders]\ntools = '/etc'", "no folder of the project"),
        ("[tool.runtools.folders]\ntools = '.'", "no folder of the project"),
        ("[tool.runtools.folders]\ntools = 'src/../tools'", "no folder of the project"),
        ("[tool.runtools", "no TOML"),
    ],
)
def test_malformed_settings_name_the_field(project, table, said):
    with pytest.raises(InvalidRequest, match=said):
        project({}, table)
