"""What `runtools ssh-config --write` does to a file that is the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtools.cli.sandbox import ssh
from runtools.errors import InvalidRequest

ENTRY = "Host box\n    Port 1"
MINE = "Host other\n    User me\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration of ssh; not there yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh" / "config"


def test_an_entry_is_put_first_and_replaced_where_it_stands(config: Path) -> None:
    config.write_text(MINE)
    for port in (1, 2):
        ssh._put("box", f"Host box\n    Port {port}")
    text = config.read_text()
    assert text.count("Host box\n") == 1
    assert "Port 2" in text
    assert text.endswith(MINE)
    ssh._put("box2", ENTRY)
    ssh._put("box", ENTRY)
    assert config.read_text().count("Host box\n") == 2
    assert config.read_text().endswith(MINE)


def test_one_whose_end_is_missing_takes_nothing_else_away(config: Path) -> None:
    ssh._put("box", ENTRY)
    damaged = config.read_text().replace("# <<< runtools box <<<\n", "") + MINE
    config.write_text(damaged)
    with pytest.raises(InvalidRequest, match="without its last line"):
        ssh._put("box", ENTRY)
    assert config.read_text() == damaged


def test_one_at_the_very_end_of_a_file_is_whole(config: Path) -> None:
    ssh._put("box", ENTRY)
    config.write_text(MINE + config.read_text().rstrip("\n"))
    ssh._put("box", ENTRY)
    assert config.read_text().count("Host box\n") == 1
    assert MINE in config.read_text()


def test_a_link_stays_one(config: Path, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles"
    kept.write_text(MINE)
    config.symlink_to(kept)
    ssh._put("box", ENTRY)
    assert config.is_symlink()
    assert "Host box" in kept.read_text()


@pytest.mark.parametrize("name", ["*", "a b", "a\nProxyCommand x", "!a", "-x", "?"])
def test_a_name_is_one_name(config: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no name of a host"):
        ssh.ssh_config("web", host=name, write=True)
    assert not config.exists()
