from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.kit.config import Settings, load

DOCS = Path(__file__).parents[4] / "docs" / "settings.md"


def test_environment_wins_over_the_file(tmp_path):
    (tmp_path / "config.toml").write_text('api_port = 8000\nmirror = "file"\n')
    settings = load({"RUNTOOLS_HOME": str(tmp_path), "RUNTOOLS_API_PORT": "8001"})
    assert (settings.home, settings.api_port, settings.mirror) == (tmp_path, 8001, "file")


def test_the_clients_variables_are_no_settings(tmp_path):
    assert load({"RUNTOOLS_HOME": str(tmp_path), "RUNTOOLS_API_KEY": "x"}).home == tmp_path


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RUNTOOLS_API_PROT", "1", "unknown setting 'api_prot'"),
        ("RUNTOOLS_API_PORT", "many", "api_port must be a whole number"),
        ("RUNTOOLS_ACCELERATOR", "xen", "accelerator must be one of auto, kvm, tcg"),
        ("RUNTOOLS_BUILD_MINUTES", "-1", "build_minutes must not be below 0: '-1'"),
        ("RUNTOOLS_MEMORY_FACTOR", "nan", "memory_factor must not be below 0: 'nan'"),
    ],
)
def test_a_bad_setting_is_named(tmp_path, name, value, says):
    with pytest.raises(InvalidRequest, match=re.escape(says)):
        load({"RUNTOOLS_HOME": str(tmp_path), name: value})


def test_a_misspelt_setting_is_told_which_was_meant(tmp_path):
    with pytest.raises(InvalidRequest) as caught:
        load({"RUNTOOLS_HOME": str(tmp_path), "RUNTOOLS_API_PROT": "1"})
    assert "did you mean api_port" in str(caught.value.hint)


def test_a_bad_file_is_named(tmp_path):
    (tmp_path / "config.toml").write_text("= nothing")
    with pytest.raises(InvalidRequest, match=r"config\.toml is not valid TOML"):
        load({"RUNTOOLS_HOME": str(tmp_path)})


def test_every_setting_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", DOCS.read_text(), re.MULTILINE))
    wanted = {f.name: f"`{f.default}`" if f.default != "" else "(empty)" for f in fields(Settings)}
    assert rows == wanted


def test_what_is_written_names_no_setting_that_is_not():
    """As a variable of the environment, or as ``setting `name```."""
    root = DOCS.parents[1]
    pages = [*root.glob("*.md"), *(root / "docs").glob("*.md"), *(root / "examples").rglob("*.md")]
    known = {field.name for field in fields(Settings)} | {"api_key", "api_url"}
    found = set()
    for page in pages:
        if page.name != "CHANGELOG.md":  # it tells of what was
            text = page.read_text()
            found |= {name.lower() for name in re.findall(r"\bRUNTOOLS_([A-Z_]+)", text)}
            found |= set(re.findall(r"(?i)\bsettings?:? `([a-z_]+)`", text))
    assert "outbound_allow" in found
    assert found - known == set()


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("https://RunTools.Example.com:443/", "https://runtools.example.com"),
        ("HTTPS://rt.test", "https://rt.test"),
        ("http://rt.test:80", "http://rt.test"),
        ("https://rt.test:8443", "https://rt.test:8443"),
        ("http://[::1]:7700", "http://[::1]:7700"),
        ("", ""),
    ],
)
def test_the_public_address_is_kept_as_browsers_say_it(tmp_path, said, kept):
    settings = load({"RUNTOOLS_HOME": str(tmp_path), "RUNTOOLS_PUBLIC_URL": said})
    assert settings.public_url == kept


@pytest.mark.parametrize(
    "said",
    [
        "rt.test",
        "ftp://rt.test",
        "https://",
        "https://rt.test/below",
        "https://rt.test?x",
        "https://rt.test#x",
        "https://ann@rt.test",
        "https://rt.test:port",
        "https://[::1",
        "https://r\u0442.test",
    ],
)
def test_a_public_address_that_is_none_is_refused(tmp_path, said):
    with pytest.raises(InvalidRequest, match="public_url"):
        load({"RUNTOOLS_HOME": str(tmp_path), "RUNTOOLS_PUBLIC_URL": said})
