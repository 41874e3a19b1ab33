"""Sparse files stay sparse, and copies are whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtools.platform.host.disk import files, trees
from runtools.platform.kit import process

MB = 1 << 20


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """64 MB with two pieces of data in it, one at the very end."""
    path = tmp_path / "sparse.img"
    with path.open("wb") as file:
        file.truncate(64 * MB)
        file.seek(10 * MB)
        file.write(b"middle" * 1000)
        file.seek(64 * MB - 3)
        file.write(b"end")
    return path


class TestMakeOverlay:
    async def test_is_a_clean_ext4_of_that_size(self, tmp_path: Path) -> None:
        path = tmp_path / "overlay.img"
        await files.make_overlay(path, 512)
        assert path.stat().st_size == 512 * MB
        assert (await process.run(["e2fsck", "-fn", path])).code == 0

    async def test_takes_little_space(self, tmp_path: Path) -> None:
        path = tmp_path / "overlay.img"
        await files.make_overlay(path, 8192)
        assert trees.used_bytes(path) < 8 * MB

    async def test_replaces_what_was_there(self, tmp_path: Path) -> None:
        path = tmp_path / "overlay.img"
        path.write_bytes(b"old" * MB)
        await files.make_overlay(path, 512)
        assert b"oldold" not in path.read_bytes()[: 4 * MB]

    async def test_is_the_owners_alone(self, tmp_path: Path) -> None:
        await files.make_overlay(tmp_path / "overlay.img", 512)
        assert (tmp_path / "overlay.img").stat().st_mode & 0o777 == 0o600

    async def test_can_grow_far(self, tmp_path: Path) -> None:
        path = tmp_path / "overlay.img"
        await files.make_overlay(path, 512)
        await files.grow(path, 102_400)
        await process.run(["resize2fs", path])
        assert (await process.run(["e2fsck", "-fn", path])).code == 0


class TestCopySparse:
    async def test_same_content(self, sparse: Path, tmp_path: Path) -> None:
        await files.copy_sparse(sparse, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == sparse.read_bytes()

    async def test_holes_stay_holes(self, sparse: Path, tmp_path: Path) -> None:
        await files.copy_sparse(sparse, tmp_path / "copy")
        assert trees.used_bytes(tmp_path / "copy") < MB

    async def test_replaces_a_larger_file(self, sparse: Path, tmp_path: Path) -> None:
        target = tmp_path / "copy"
        target.write_bytes(b"x" * (70 * MB))
        await files.copy_sparse(sparse, target)
        assert target.read_bytes() == sparse.read_bytes()

    async def test_a_file_of_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "hole").touch()
        os.truncate(tmp_path / "hole", MB)
        await files.copy_sparse(tmp_path / "hole", tmp_path / "copy")
        assert (tmp_path / "copy").stat().st_size == MB

    async def test_failure_leaves_the_old_file(self, tmp_path: Path) -> None:
        target = tmp_path / "copy"
        target.write_text("old")
        with pytest.raises(FileNotFoundError):
            await files.copy_sparse(tmp_path / "missing", target)
        assert target.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["copy"]


class TestGrow:
    async def test_by_a_hole(self, sparse: Path) -> None:
        before = trees.used_bytes(sparse)
        await files.grow(sparse, 256)
        assert sparse.stat().st_size == 256 * MB
        assert trees.used_bytes(sparse) == before

    async def test_never_cuts(self, sparse: Path) -> None:
        await files.grow(sparse, 1)
        assert sparse.stat().st_size == 64 * MB


def test_free_bytes_is_what_statvfs_says(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    assert abs(files.free_bytes(tmp_path) - stat.f_bavail * stat.f_frsize) < 100 * MB


async def test_sync_takes_files_and_folders(sparse: Path, tmp_path: Path) -> None:
    await files.sync([sparse, tmp_path])
