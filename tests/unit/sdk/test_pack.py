from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from runtools.errors import InvalidRequest
from runtools.sdk.local import file_source
from runtools.sdk.pack import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return tmp_path / "app"


def packed(folder: Folder) -> dict[str, tarfile.TarInfo]:
    stream = io.BytesIO(b"".join(folder.pack()))
    with tarfile.open(fileobj=stream) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_everything_is_in_it_and_belongs_to_root(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/x.sh").write_text("#!")
    (folder / "sub/x.sh").chmod(0o755)
    (folder / "link").symlink_to("sub/x.sh")
    found = packed(Folder(folder))
    assert sorted(found) == ["link", "sub", "sub/x.sh"]
    assert found["sub/x.sh"].mode == 0o755
    assert found["link"].linkname == "sub/x.sh"
    assert {(member.uid, member.gid) for member in found.values()} == {(0, 0)}


def test_long_and_odd_names_survive(folder: Path) -> None:
    odd = os.fsdecode(b"\xff-" + b"n" * 200)
    (folder / odd).write_bytes(b"x" * 513)
    deep = folder / "/".join(["d" * 60] * 4)
    deep.mkdir(parents=True)
    assert {odd, str(deep.relative_to(folder))} <= set(packed(Folder(folder)))


def test_an_empty_folder_is_a_sound_archive(folder: Path) -> None:
    assert packed(Folder(folder)) == {}


def test_what_cannot_come_is_told(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "outside").symlink_to("../../x")
    (folder / "dangling").symlink_to("not/there")
    source = Folder(folder)
    assert list(packed(source)) == ["dangling"]
    assert {one.path for one in source.done().skipped} == {"pipe", "absolute", "outside"}


def test_a_file_that_shrinks_meanwhile_is_no_success(folder: Path) -> None:
    (folder / "log").write_bytes(b"x" * 1000)
    stream = Folder(folder).pack()
    next(stream)
    os.truncate(folder / "log", 10)
    with pytest.raises(InvalidRequest, match="shrank"):
        list(stream)


def test_a_file_that_grows_meanwhile_is_no_success(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x")
    source = file_source(path)
    path.write_bytes(b"xy")
    with pytest.raises(InvalidRequest, match="changed its size"):
        list(source.read())
