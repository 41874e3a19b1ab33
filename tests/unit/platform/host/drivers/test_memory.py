"""RAM files: copies, and pages read out of a process. The process is this one."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.errors import CapacityExhausted
from runtools.platform.host.drivers.qemu import memory
from runtools.platform.host.drivers.qemu.memory import PAGE

PAGES = 3000  # more than are looked at at once would be 4096: see LARGE
LARGE = 9001


def ram_file(path: Path, pages: int) -> Path:
    """Mostly holes, as RAM is: something on every hundredth page."""
    with path.open("wb") as file:
        for page in range(0, pages, 100):
            file.seek(page * PAGE)
            file.write(b"template")
        file.truncate(pages * PAGE)
    return path


def all_is_data(fd, at, how):
    """What a file system says that knows no holes."""
    return {os.SEEK_DATA: at, os.SEEK_HOLE: os.fstat(fd).st_size}[how]


def as_root(test):
    return pytest.mark.skipif(os.geteuid() != 0, reason="map_files is root's")(test)


@pytest.fixture(params=[PAGES, LARGE])
def pages(request) -> int:
    return request.param


@pytest.fixture
def template(tmp_path: Path, pages: int) -> Path:
    return ram_file(tmp_path / "template", pages)


@pytest.fixture
def private(template: Path, pages: int) -> Iterator[mmap.mmap]:
    with template.open("rb") as file:
        flags, rights = mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        with mmap.mmap(file.fileno(), pages * PAGE, flags, rights) as ram:
            yield ram


def saved(template: Path, path: Path, pages: int) -> bytes:
    """What a suspend makes of this process's private RAM."""
    with template.open("rb") as source, path.open("w+b") as target:
        memory.copy(source.fileno(), target.fileno())
        memory.rescue(os.getpid(), pages * PAGE, target.fileno())
    return path.read_bytes()


class TestRescue:
    def test_what_was_written_is_found(self, template, private, pages, tmp_path):
        last = (pages - 1) * PAGE
        for at, text in ((0, b"first"), (4095 * PAGE, b"border"), (last, b"last")):
            if at <= last:
                private[at : at + len(text)] = text
        private[200 * PAGE : 260 * PAGE] = b"r" * (60 * PAGE)
        assert saved(template, tmp_path / "own", pages) == private[:]

    def test_nothing_written_copies_nothing(self, template, private, pages, tmp_path):
        private[100 * PAGE]  # reading makes no page one's own
        with (tmp_path / "own").open("w+b") as target:
            assert memory.rescue(os.getpid(), pages * PAGE, target.fileno()) == 0

    def test_only_what_differs_is_copied(self, template, private, pages, tmp_path):
        private[7 * PAGE] = 1
        with (tmp_path / "own").open("w+b") as target:
            assert memory.rescue(os.getpid(), pages * PAGE, target.fileno()) == PAGE

    def test_zeros_over_a_template_count(self, template, private, pages, tmp_path):
        private[100 * PAGE : 101 * PAGE] = bytes(PAGE)
        assert saved(template, tmp_path / "own", pages)[100 * PAGE : 101 * PAGE] == bytes(PAGE)

    def test_a_process_without_such_ram_is_refused(self, tmp_path):
        with (tmp_path / "own").open("w+b") as target, pytest.raises(FileNotFoundError):
            memory.rescue(os.getpid(), 12_345 * PAGE, target.fileno())

    def test_a_process_that_is_gone_is_refused(self, tmp_path):
        done = subprocess.Popen(["true"])
        done.wait()
        with (tmp_path / "own").open("w+b") as target, pytest.raises(OSError):  # noqa: PT011
            memory.rescue(done.pid, PAGE, target.fileno())


class TestPrivateFile:
    @as_root
    def test_is_found_even_without_a_name(self, template, private, pages):
        content = template.read_bytes()
        template.unlink()
        fd = memory.private_file(os.getpid(), pages * PAGE)
        with os.fdopen(fd, "rb") as file:
            assert file.read() == content


class TestRoom:
    """A copy stops above what is to stay free."""

    def test_a_copy_is_refused_by_name(self, template, tmp_path):
        with template.open("rb") as source, (tmp_path / "copy").open("w+b") as target:
            with pytest.raises(CapacityExhausted, match="no room to go on copying"):
                memory.copy(source.fileno(), target.fileno(), keep_free=1 << 60)
            assert os.fstat(target.fileno()).st_blocks == 0

    def test_one_over_an_earlier_copy_takes_none_and_asks_for_none(self, template, pages, tmp_path):
        with template.open("r+b") as source, (tmp_path / "copy").open("w+b") as target:
            memory.copy(source.fileno(), target.fileno())
            source.seek(0)
            source.write(b"changed since")
            source.flush()
            memory.copy(source.fileno(), target.fileno(), keep_free=1 << 60)
            assert (tmp_path / "copy").read_bytes() == template.read_bytes()
            # What has come to life meanwhile does take some.
            source.seek(50 * PAGE)
            source.write(b"fresh")
            source.flush()
            with pytest.raises(CapacityExhausted, match="no room to go on copying"):
                memory.copy(source.fileno(), target.fileno(), keep_free=1 << 60)

    @as_root
    def test_so_are_pages_out_of_a_process(self, template, private, pages, tmp_path):
        private[PAGE : PAGE + 4] = b"mine"
        with (tmp_path / "copy").open("w+b") as target:
            with pytest.raises(CapacityExhausted, match="no room to go on copying"):
                memory.rescue(os.getpid(), pages * PAGE, target.fileno(), keep_free=1 << 60)
            assert os.fstat(target.fileno()).st_size == 0

    def test_room_for_scattered_pages_is_asked_for_together(
        self, template, private, pages, tmp_path, monkeypatch
    ):
        for page in range(0, pages, 2):
            private[page * PAGE] = 1
        asked = []
        monkeypatch.setattr(
            memory, "check_room", lambda target, count, keep_free: asked.append(count)
        )
        with (tmp_path / "copy").open("w+b") as target:
            took = memory.rescue(os.getpid(), pages * PAGE, target.fileno(), keep_free=1)
        assert sum(asked) == took == (pages + 1) // 2 * PAGE
        assert len(asked) == -(-took // (16 << 20))

    def test_where_no_holes_are_told_it_is_asked_for_all_of_a_fresh_copy(
        self, template, pages, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(os, "lseek", all_is_data)
        with template.open("rb") as source, (tmp_path / "copy").open("w+b") as target:
            with pytest.raises(CapacityExhausted, match="no room to go on copying"):
                memory.copy(source.fileno(), target.fileno(), keep_free=1 << 60)
            assert os.fstat(target.fileno()).st_blocks == 0
        with template.open("rb") as source, (tmp_path / "copy").open("w+b") as target:
            memory.copy(source.fileno(), target.fileno(), keep_free=1)
            memory.copy(source.fileno(), target.fileno(), keep_free=1 << 60)
        assert (tmp_path / "copy").read_bytes() == template.read_bytes()


class TestCopy:
    def test_is_equal_and_as_sparse(self, template, pages, tmp_path):
        with template.open("rb") as source, (tmp_path / "copy").open("w+b") as target:
            memory.copy(source.fileno(), target.fileno())
        copied = tmp_path / "copy"
        assert copied.read_bytes() == template.read_bytes()
        assert copied.stat().st_blocks <= template.stat().st_blocks

    def test_again_follows_what_has_changed(self, template, pages, tmp_path):
        with template.open("r+b") as source, (tmp_path / "copy").open("w+b") as target:
            memory.copy(source.fileno(), target.fileno())
            for at in (50 * PAGE, 100 * PAGE):
                os.pwrite(source.fileno(), b"changed", at)
            memory.copy(source.fileno(), target.fileno())
        assert (tmp_path / "copy").read_bytes() == template.read_bytes()


class TestFresh:
    def test_takes_its_place_when_kept(self, tmp_path):
        with memory.Fresh(tmp_path / "ram", os.getuid()) as fresh:
            os.write(fresh.fd, b"new")
            assert not (tmp_path / "ram").exists()
            fresh.keep()
        assert (tmp_path / "ram").read_bytes() == b"new"

    def test_goes_away_when_not(self, tmp_path):
        (tmp_path / "ram").write_bytes(b"old")
        with memory.Fresh(tmp_path / "ram", os.getuid()) as fresh:
            os.write(fresh.fd, b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["ram"]
        assert (tmp_path / "ram").read_bytes() == b"old"

    def test_does_not_write_through_a_link(self, tmp_path):
        (tmp_path / "ram.new").symlink_to(tmp_path / "victim")
        with memory.Fresh(tmp_path / "ram", os.getuid()) as fresh:
            os.write(fresh.fd, b"new")
        assert not (tmp_path / "victim").exists()


def test_pss_of_this_process():
    assert memory.pss(os.getpid()) > 1 << 20
    assert memory.pss(2**22 + 1) == 0
