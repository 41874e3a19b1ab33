"""Files that survive a crash: a reader sees the old content or the new, never a half."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a write fails with for want of room."""


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in the folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace the file's content as a whole.

    ``durable`` false skips the fsync: the file is still whole after a crash of ours, but a power loss
    may bring back the old one.
    """
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    except OSError:
        fresh.unlink(missing_ok=True)  # on a full disk the half of it is in the way of the next
        raise
    finally:
        os.close(fd)
    fresh.replace(path)
    if durable:
        sync_folder(path.parent)


def write_number(path: Path, text: str) -> None:
    """Replace a short text that never gets shorter, durably; also where no block of the disk is free.

    Then it is written in place: a sector is written as a whole.
    """
    try:
        write_atomic(path, text.encode())
    except OSError as exc:
        if exc.errno not in FULL or not path.exists():
            raise
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, text.encode(), 0)
            os.fsync(fd)
        finally:
            os.close(fd)


def write_whole(fd: int, data: bytes) -> None:
    """Append by one write; what a full disk took only a part of is taken back.

    Raises:
        OSError: it was not written.
    """
    done = os.write(fd, data)
    if done != len(data):
        os.ftruncate(fd, os.fstat(fd).st_size - done)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
