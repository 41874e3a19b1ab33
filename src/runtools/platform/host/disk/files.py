"""Sparse image files on the host's disk.

Nothing here looks *into* an image: what a guest has written is never parsed by the host. So a file
system is made here once, empty, and grown from inside the guest.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from runtools.errors import CapacityExhausted
from runtools.platform.host.disk import room
from runtools.platform.kit import process

_FICLONE = 0x40049409
_NO_REFLINK = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
_MB = 2**20
_COPY_AT_ONCE = 8 * _MB
_MKFS = (
    # No reserved blocks (everybody is root), metadata together, and no writing of inode tables, which
    # would touch megabytes of a file that is meant to stay sparse.
    *("mkfs.ext4", "-q", "-F", "-m", "0", "-L", "sandbox"),
    *("-E", "lazy_itable_init=1,lazy_journal_init=1,packed_meta_blocks=1,nodiscard"),
    *("-J", "size=16"),
)


async def make_overlay(path: Path, size_mb: int) -> None:
    """Make a sparse file with an empty ext4 in it. What was there is replaced."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size_mb << 20)
    finally:
        os.close(fd)
    await process.run([*_MKFS, path])


async def copy_sparse(src: Path, dst: Path, keep_free: int = 0) -> None:
    """Copy a file, replacing ``dst``: by reference where the file system can, else without the holes.

    Raises:
        CapacityExhausted: fewer than ``keep_free`` bytes would be left on the disk; nothing of the copy is.
    """
    await asyncio.to_thread(_copy, src, dst, keep_free)


async def grow(path: Path, size_mb: int) -> None:
    """Make the file larger by a hole; a file that is large enough stays as it is."""
    if path.stat().st_size < size_mb << 20:
        os.truncate(path, size_mb << 20)


def free_bytes(path: Path) -> int:
    """Bytes that unprivileged writers can still put on the path's file system."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def total_bytes(path: Path) -> int:
    """Bytes of the path's file system."""
    stat = os.statvfs(path)
    return stat.f_blocks * stat.f_frsize


async def sync(paths: Iterable[Path]) -> None:
    """Make files, and what lies directly in folders, durable."""
    await asyncio.to_thread(_sync, list(paths))


async def can_reflink(folder: Path) -> bool:
    """Whether files in the folder can be copied by reference."""
    return await asyncio.to_thread(_try_reflink, folder)


def clone(source: int, target: int) -> bool:
    """Have an open file share the bytes of another, where the file system can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as exc:
        if exc.errno in _NO_REFLINK:
            return False
        raise
    return True


def written(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The stretches of a part of an open file that are no holes."""
    at = start
    while at < end:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if begin >= end:
            return
        at = min(os.lseek(fd, begin, os.SEEK_HOLE), end)
        yield begin, at


def unwritten(fd: int, start: int, end: int) -> int:
    """How many bytes of a part of an open file occupy nothing on its disk yet."""
    return end - start - sum(until - begin for begin, until in written(fd, start, end))


def check_room(target: int, count: int, keep_free: int) -> None:
    """Make sure that so many bytes can be written into an open file.

    Raises:
        CapacityExhausted: fewer than ``keep_free`` would be left on its disk.
    """
    stat = os.fstatvfs(target)
    free = stat.f_bavail * stat.f_frsize - keep_free
    if count > free:
        asked_mb, free_mb = round(count / _MB, 1), round(max(0, free) / _MB, 1)
        raise CapacityExhausted(
            f"no room to go on copying: the next part takes {asked_mb:g} MB, "
            f"{free_mb:g} MB are free above the headroom",
            hint=room.HINT,
            details={"what": "MB of disk above the headroom", "asked": asked_mb, "free": free_mb},
        )


def _copy(src: Path, dst: Path, keep_free: int) -> None:
    fresh = dst.with_name(f".{dst.name}.new")
    source = os.open(src, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stat = os.fstat(source)
        mode = stat.st_mode & 0o777
        target = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            if not clone(source, target):
                os.ftruncate(target, stat.st_size)
                for start, end in written(source, 0, stat.st_size):
                    _copy_range(source, target, start, end, keep_free)
        finally:
            os.close(target)
        fresh.replace(dst)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(source)


def _copy_range(source: int, target: int, start: int, end: int, keep_free: int) -> None:
    while start < end:
        count = min(_COPY_AT_ONCE, end - start)
        if keep_free:
            check_room(target, count, keep_free)
        copied = os.copy_file_range(source, target, count, start, start)
        if copied == 0:  # the source was cut while we read
            return
        start += copied


def _sync(paths: list[Path]) -> None:
    for path in paths:
        entries = [path, *path.iterdir()] if path.is_dir() else [path]
        for entry in entries:
            fd = os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _try_reflink(folder: Path) -> bool:
    source = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    target = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.pwrite(source, b"\0" * 4096, 0)
        return clone(source, target)
    finally:
        os.close(source)
        os.close(target)
