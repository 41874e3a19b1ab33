"""Folders in which a VMM that a guest has taken over may have made what it liked.

So nothing here goes down by path or by recursion without a bound: names can be nested deeper than any
path may be long, and deeper than Python can call itself.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from runtools.guest import deep

log = logging.getLogger(__name__)

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = deep.FOLDER

# What the platform itself keeps of a sandbox is four levels deep, and some dozens of files.
_DEEPEST = 16
_MOST_ENTRIES = 100_000


def remove(folder: Path) -> None:
    """Remove a folder and what is in it, however deep; one that is gone is no error."""
    if folder.exists():
        deep.lift_and_remove(os.fspath(folder))


def used_bytes(path: Path) -> int:
    """Bytes that a file, or everything below a folder, occupies on disk. What is gone counts 0.

    What lies beyond the bounds is not counted, which is logged: whoever owns it is no guest of ours.
    """
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_blocks * 512
        top = os.open(path, _FOLDER)
    except FileNotFoundError:
        return 0
    try:
        sizes = list(itertools.islice(_sizes(top, _DEEPEST), _MOST_ENTRIES + 1))
    finally:
        os.close(top)
    if None in sizes or len(sizes) > _MOST_ENTRIES:
        log.warning("%s holds more than is looked through; the rest is not counted", path)
    return sum(size or 0 for size in sizes)


def sync(folder: Path) -> None:
    """Make regular files durable, and each folder after what is in it. What is gone is no error.

    What lies beyond the bounds is left out: it is nothing that the platform has kept there.
    """
    try:
        top = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return
    try:
        _sync(top, _DEEPEST, itertools.count())
    finally:
        os.close(top)


def _sync(folder: int, levels: int, entries: Iterator[int]) -> None:
    with os.scandir(folder) as found:
        for entry in found:
            if next(entries) > _MOST_ENTRIES:
                break
            if entry.is_dir(follow_symlinks=False):
                flags = _FOLDER if levels else None
            else:
                flags = _FILE if entry.is_file(follow_symlinks=False) else None
            if flags is None:
                continue
            try:
                inner = os.open(entry.name, flags, dir_fd=folder)
            except OSError as exc:
                # Removed, or exchanged for something else while we looked.
                if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                    raise
                continue
            try:
                if flags == _FOLDER:
                    _sync(inner, levels - 1, entries)
                else:
                    os.fsync(inner)
            finally:
                os.close(inner)
    os.fsync(folder)


def _sizes(folder: int, levels: int) -> Iterator[int | None]:
    """What each file below an open folder occupies; None for a folder that is too deep."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False).st_blocks * 512
                    continue
                if not levels:
                    yield None
                    continue
                inner = os.open(entry.name, _FOLDER, dir_fd=folder)
            except FileNotFoundError:  # a sandbox may be on its way out
                continue
            except NotADirectoryError:  # it was exchanged while we looked
                continue
            try:
                yield 0
                yield from _sizes(inner, levels - 1)
            finally:
                os.close(inner)
