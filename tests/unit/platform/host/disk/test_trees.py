"""Folders as a VMM that was taken over may leave them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runtools.platform.host.disk import trees
from runtools.testing.nested import nest


class TestRemove:
    @pytest.mark.parametrize(("depth", "name"), [(1500, "d"), (20, "n" * 255)])
    def test_what_no_path_can_name(self, tmp_path: Path, depth: int, name: str) -> None:
        top = tmp_path / "box"
        top.mkdir()
        nest(top, depth, name)
        trees.remove(top)
        assert list(tmp_path.iterdir()) == []

    def test_names_that_are_ours_already(self, tmp_path: Path) -> None:
        top = tmp_path / "box"
        for path in (".lifted-0/a", ".lifted-2/.lifted-1/b", "c/.lifted-0/d", "c/e"):
            (top / path).mkdir(parents=True)
        (top / ".lifted-3").write_text("a file")
        trees.remove(top)
        assert not top.exists()

    def test_what_a_link_leads_to_stays(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/file").write_text("kept")
        top = tmp_path / "box"
        (top / "in").mkdir(parents=True)
        for link in (top / "link", top / "in/link"):
            link.symlink_to(tmp_path / "mine")
        trees.remove(top)
        assert (tmp_path / "mine/file").read_text() == "kept"
        assert not top.exists()

    def test_what_is_gone(self, tmp_path: Path) -> None:
        trees.remove(tmp_path / "gone")


class TestUsedBytes:
    def test_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a/file").write_bytes(b"x" * 10_000)
        (tmp_path / "loop").symlink_to(tmp_path)
        assert 10_000 <= trees.used_bytes(tmp_path) < 30_000

    def test_of_nothing(self, tmp_path: Path) -> None:
        assert trees.used_bytes(tmp_path / "gone") == 0

    @pytest.mark.parametrize(("depth", "name"), [(1500, "d"), (20, "n" * 255)])
    def test_what_is_too_deep_is_told_and_left_out(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, depth: int, name: str
    ) -> None:
        (tmp_path / "file").write_bytes(b"x" * 10_000)
        nest(tmp_path, depth, name)
        assert 10_000 <= trees.used_bytes(tmp_path) < 30_000
        assert "holds more than is looked through" in caplog.text
        trees.remove(tmp_path / name)  # for pytest's own clearing away

    def test_entries_without_end_are_counted_up_to_a_bound(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trees, "_MOST_ENTRIES", 10)
        for number in range(10):
            (tmp_path / str(number)).touch()
        trees.used_bytes(tmp_path)
        assert caplog.text == ""
        (tmp_path / "one more").touch()
        trees.used_bytes(tmp_path)
        assert "holds more than is looked through" in caplog.text


class TestSync:
    def test_files_before_the_folders_that_they_are_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "a/b/file").write_bytes(b"x")
        seen: list[str] = []
        monkeypatch.setattr(
            os, "fsync", lambda fd: seen.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        )
        trees.sync(tmp_path)
        assert seen == [str(tmp_path / each) for each in ("a/b/file", "a/b", "a", ".")]

    def test_what_may_not_be_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("/dev/null")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "socket"))
            trees.sync(tmp_path)

    def test_a_nest_of_folders(self, tmp_path: Path) -> None:
        top = tmp_path / "box"
        top.mkdir()
        nest(top, 1500)
        trees.sync(tmp_path)
        trees.remove(top)

    def test_what_is_gone(self, tmp_path: Path) -> None:
        trees.sync(tmp_path / "gone")
