"""What sessions that were killed have left of their servers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runtools.testing import postgres


def left(place: Path, name: str) -> Path:
    """The folder of a session that was killed."""
    folder = place / name
    (folder / "data").mkdir(parents=True)
    (folder / "data/file").write_text("takes memory")
    (folder / "lock").touch()
    return folder


def test_the_next_session_removes_what_belongs_to_nobody_and_nothing_else(tmp_path: Path) -> None:
    left(tmp_path, "rt-pg-dead")
    others, alive = left(tmp_path, "others"), left(tmp_path, "rt-pg-alive")
    with postgres._hold(alive):
        postgres._clear(tmp_path)
        assert {*tmp_path.iterdir()} == {others, alive}
        assert (alive / "data/file").exists()
    postgres._clear(tmp_path)
    assert [*tmp_path.iterdir()] == [others]


def test_one_that_is_killed_while_it_removes_is_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, remove = left(tmp_path, "rt-pg-dead"), shutil.rmtree

    def killed(path: Path) -> None:
        if path == folder:
            raise SystemExit
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(SystemExit):
            postgres._clear(tmp_path)
    assert [one.name for one in folder.iterdir()] == ["lock"]
    postgres._clear(tmp_path)
    assert [*tmp_path.iterdir()] == []
