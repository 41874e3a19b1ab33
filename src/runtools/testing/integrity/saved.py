"""The files of a paused sandbox, block by block, so that a change can be named."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from runtools.testing.integrity.known import Mismatch

BLOCK = 1 << 20
# Below the folder of a machine: its memory, its devices, its disk.
MEMORY = "vmm/box/ram"
FILES = (MEMORY, "vmm/state", "overlay.img")

Digests = Mapping[str, Mapping[int, bytes]]


def digests(folder: Path) -> Digests:
    """Of each saved file the digest of every block that is no zeros, by its number."""
    return {name: _file(folder / name) for name in FILES}


def compare(before: Digests, after: Digests) -> None:
    """Make sure that nothing has changed.

    Raises:
        Mismatch: something has; the blocks are named.
    """
    changed = {
        name: sorted(
            block
            for block in before[name].keys() | after[name].keys()
            if before[name].get(block) != after[name].get(block)
        )
        for name in FILES
    }
    if any(changed.values()):
        named = {name: blocks for name, blocks in changed.items() if blocks}
        raise Mismatch("what was saved has changed while nothing ran", megabytes=named)


def data_bytes(found: Digests, *names: str) -> int:
    """How much there is in these files, or in all, zeros not counted."""
    return sum(len(found[name]) for name in names or found) * BLOCK


def memory_in_use(folder: Path) -> int:
    """How many bytes the memory of a machine takes, as whoever copies it asks."""
    return (folder / MEMORY).stat().st_blocks * 512


def _file(path: Path) -> dict[int, bytes]:
    """A hole and zeros are the same: what is missing is one of them."""
    found = {}
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = _data_from(fd, 0)
        while at is not None:
            block = at // BLOCK
            data = os.pread(fd, BLOCK, block * BLOCK)
            if data.strip(b"\0"):
                found[block] = hashlib.sha256(data).digest()
            at = _data_from(fd, (block + 1) * BLOCK)
    finally:
        os.close(fd)
    return found


def _data_from(fd: int, at: int) -> int | None:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return None
        raise
