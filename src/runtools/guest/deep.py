"""Trees of folders that may be nested deeper than Python can call itself: copied and removed."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Final

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy(
    start: str,
    end: str,
    copy_bytes: Callable[[str, str], None],
    finish: Callable[[str, os.stat_result], None],
) -> None:
    """Copy whatever lies there to a name that is free.

    Args:
        copy_bytes: makes the second regular file out of the first.
        finish: gives a copy its owner, mode and times; a folder gets them after what is in it.
    """
    waiting, folders = [(start, end)], []
    while waiting:
        source, target = waiting.pop()
        found = os.lstat(source)
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(target, 0o700)
            folders.append((target, found))
            with os.scandir(source) as items:
                waiting += [(item.path, f"{target}/{item.name}") for item in items]
            continue
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(found.st_mode):
            copy_bytes(source, target)
        else:
            raise OSError(errno.EINVAL, "neither a file, a directory nor a symlink", source)
        finish(target, found)
    for target, found in reversed(folders):
        finish(target, found)


def remove(folder: str) -> None:
    """Remove a folder and all below it, where it stands; what is nested too deep, by lifting it up."""
    try:
        shutil.rmtree(folder)
    except RecursionError:
        lift_and_remove(folder)


def lift_and_remove(folder: str) -> None:
    """Remove a folder and what is in it, however deep: what is nested comes up before it is looked into."""
    top = os.open(folder, FOLDER)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(folder)


def _empty(top: int) -> None:
    numbers = itertools.count()
    waiting = _only_folders(top)
    while waiting:
        name = waiting.pop()
        inner = os.open(name, FOLDER, dir_fd=top)
        try:
            waiting += [_lift(inner, each, top, numbers) for each in _only_folders(inner)]
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)


def _only_folders(folder: int) -> list[str]:
    """Remove all else from an open folder; the names of those that are left."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]


def _lift(folder: int, name: str, top: int, numbers: Iterator[int]) -> str:
    """Move a folder up to the top, under a name that nothing there has."""
    for number in numbers:
        fresh = f".lifted-{number}"
        try:
            os.stat(fresh, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, fresh, src_dir_fd=folder, dst_dir_fd=top)
            return fresh
    raise AssertionError("numbers do not end")
