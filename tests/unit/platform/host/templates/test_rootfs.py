"""What is laid into a root, what is taken out of it, and that no link of a script leads us out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.platform.host.templates import laying, rootfs
from runtools.platform.host.templates.build import _reason
from runtools.platform.host.templates.buildlog import BuildLog
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.process import CommandFailed

SKELETON = Path(rootfs.__file__).parent / "skeleton"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BuildLog]:
    log = BuildLog(tmp_path / "build.log", SystemClock())
    yield log
    log.end()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("dev", "proc", "sys", "run", "tmp", "boot", "etc", "var/cache/apt/archives"):
        (root / name).mkdir(parents=True)
    return root


class TestClean:
    def test_empties_what_is_volatile(self, root: Path) -> None:
        (root / "tmp/file").touch()
        (root / "run/folder").mkdir()
        rootfs.clean(root)
        assert list((root / "tmp").iterdir()) == list((root / "run").iterdir()) == []
        assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777

    def test_follows_no_link_that_a_script_laid(self, root: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "precious").touch()
        (root / "boot").rmdir()
        (root / "boot").symlink_to(outside)
        (root / "tmp/inner").symlink_to(outside)
        rootfs.clean(root)
        assert (outside / "precious").exists()
        assert (root / "boot").is_dir()
        assert not (root / "boot").is_symlink()

    def test_a_missing_folder_is_made_again(self, root: Path) -> None:
        (root / "boot").rmdir()
        (root / "tmp").rmdir()
        (root / "tmp").write_text("a file")
        rootfs.clean(root)
        assert (root / "boot").is_dir()
        assert (root / "tmp").is_dir()


class TestPackageCache:
    def test_nothing_that_a_script_could_write_to_stays(self, root: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        cache.mkdir()
        (cache / "old.deb").write_text("old")
        archives = root / "var/cache/apt/archives"
        (archives / "old.deb").hardlink_to(cache / "old.deb")
        (archives / "new.deb").write_text("new")
        rootfs.keep_packages(root, cache)
        assert {file.name for file in cache.iterdir()} == {"old.deb", "new.deb"}
        assert list(archives.iterdir()) == []
        assert all(file.stat().st_nlink == 1 for file in cache.iterdir())


class TestProgress:
    def test_is_read_from_what_the_bootstrapper_says(self, log: BuildLog) -> None:
        log.step("packages", 0.0, 1.0)
        counting = rootfs._Counting(log)
        counting.line("0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.")
        for text in (
            "Get:1 a",
            "Get:2 b",
            "Unpacking a ...",
            "Unpacking b ...",
            "Setting up a ...",
        ):
            counting.line(text)
        assert log.progress == pytest.approx(5 / 6)
        counting.line("Setting up b ...")
        counting.line("Setting up c ...")
        assert log.progress == 1.0


class TestReason:
    def test_is_the_first_line_marked_as_an_error(self, log: BuildLog) -> None:
        log.step("packages", 0.0, 1.0)
        for text in ("I: working", "E: Unable to locate package x", "E: setup failed"):
            log.line(text)
        failure = CommandFailed(["mmdebstrap"], 25, b"E: setup failed")
        assert _reason(log, failure) == "E: Unable to locate package x"

    def test_else_the_last_words(self, log: BuildLog) -> None:
        log.step("script", 0.0, 1.0)
        log.line("what others said")
        output = b"one\ntwo\nthree\n\nbash: foo: command not found\n"  # which the log need not have
        reason = _reason(log, CommandFailed(["bwrap"], 127, output))
        assert reason == "ended with 127: two · three · bash: foo: command not found"

    def test_errors_of_another_step_do_not_count(self, log: BuildLog) -> None:
        log.step("packages", 0.0, 0.5)
        log.line("E: harmless, it was tried again")
        log.step("script", 0.5, 1.0)
        assert _reason(log, CommandFailed(["bwrap"], 3, b"bye")) == "ended with 3: bye"


class TestSkeleton:
    def test_every_unit_that_is_wanted_is_there(self) -> None:
        for names in rootfs._WANTED.values():
            for name in names:
                assert (SKELETON / "etc/systemd/system" / name).is_file()

    def test_nothing_of_ours_is_masked(self) -> None:
        wanted = {name for names in rootfs._WANTED.values() for name in names}
        assert not wanted & set(rootfs._MASKED)
        assert len(rootfs._MASKED) == len(set(rootfs._MASKED))

    def test_is_laid_over_what_was_there(self, root: Path) -> None:
        (root / "etc/hosts").write_text("old")
        (root / "etc/resolv.conf").symlink_to("/run/elsewhere")
        laying.lay(SKELETON, root)
        assert "localhost" in (root / "etc/hosts").read_text()
        assert not (root / "etc/resolv.conf").is_symlink()
