"""The RAM of a machine as a file: made, copied, and rescued out of a process that has it private.

A clone maps the RAM file of a capture privately: it shares with all other clones what none of them
has written. What it did write is in anonymous pages of its VMM's process, which the kernel tells apart
(bit 61 of /proc/<pid>/pagemap). So a complete file of its own is the file it was cloned from, copied
while it runs, and those pages, copied while it stands still. docs/decisions/0005 and 0052 have the figures.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runtools.platform.host.disk.files import check_room, clone, unwritten, written

PAGE = os.sysconf("SC_PAGE_SIZE")

_CHUNK = 64 << 20
_READ_AT_ONCE = 1 << 20
# Changed pages lie scattered: to ask for the room of each by itself would make the standstill longer.
_CHECKED_AT_ONCE = 16 << 20
_ENTRY = 8
_ENTRIES_AT_ONCE = 4096
# Of an entry (little-endian) the byte with its flags, and whether by them a page is the process's own.
_FLAGS = 7
_PRESENT_OR_SWAPPED, _OF_A_FILE = 0b1100_0000, 0b0010_0000
_OWN = bytes(bool(flags & _PRESENT_OR_SWAPPED and not flags & _OF_A_FILE) for flags in range(256))


@dataclass(frozen=True, slots=True)
class Mapping:
    """A stretch of a file in a process's memory."""

    start: int
    end: int
    offset: int


class Fresh:
    """A RAM file in the making, which takes the place of ``path`` when it is kept, else goes away."""

    def __init__(self, path: Path, uid: int) -> None:
        self._path = path
        self._new = path.with_name(f"{path.name}.new")
        self._new.unlink(missing_ok=True)
        self.fd = os.open(self._new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchown(self.fd, uid, uid)

    def keep(self) -> None:
        """Put it in its place."""
        self._new.rename(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        self._new.unlink(missing_ok=True)


def copy(source: int, target: int, keep_free: int = 0) -> None:
    """Copy an open file into another: by reference where the file system can, else without its holes.

    What is copied over earlier copies takes no room, and needs none.

    Raises:
        CapacityExhausted: fewer than ``keep_free`` bytes would be left on the disk.
    """
    if clone(source, target):
        return
    size = os.fstat(source).st_size
    is_fresh = os.fstat(target).st_size == 0
    os.ftruncate(target, size)
    # Not every file system tells its holes: some call all of a file written that is nothing but one.
    tells_holes = not is_fresh or unwritten(target, 0, size) > 0
    for start, end in written(source, 0, size):
        at = start
        while at < end:
            count = min(_CHUNK, end - at)
            takes = unwritten(target, at, at + count) if keep_free and tells_holes else count
            if keep_free and takes:
                check_room(target, takes, keep_free)
            done = os.copy_file_range(source, target, count, at, at)
            if done == 0:
                raise OSError(errno.EIO, "the memory file was cut while it was copied")
            at += done


def private_file(pid: int, size: int) -> int:
    """The file that a process has as its RAM, opened; it may have no name any more.

    Raises:
        ProcessLookupError, FileNotFoundError: the process is gone.
    """
    first = _mappings(pid, size)[0]
    return os.open(
        f"/proc/{pid}/map_files/{first.start:x}-{first.end:x}", os.O_RDONLY | os.O_CLOEXEC
    )


def rescue(pid: int, size: int, target: int, keep_free: int = 0) -> int:
    """Write what a process has changed of its privately mapped RAM into a copy of the file.

    The process must stand still. Returns how many bytes there were.

    Raises:
        CapacityExhausted: fewer than ``keep_free`` bytes would be left on the disk.
    """
    copied = 0
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = memoryview(bytearray(_READ_AT_ONCE))
        for batch in _batches(_parts(pid, size)):
            count = sum(one.end - one.start for one in batch)
            if keep_free:
                check_room(target, count, keep_free)
            for one in batch:
                part = buffer[: one.end - one.start]
                if os.preadv(memory, [part], one.start) != len(part):
                    raise OSError(errno.EIO, "the memory of the VMM cannot be read")
                _write(target, part, one.offset)
            copied += count
    finally:
        os.close(memory)
    return copied


def pss(pid: int) -> int:
    """Bytes that a process occupies by itself: of what it shares it is counted its part."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = (line.split() for line in text.splitlines())
    return sum(int(words[1]) << 10 for words in lines if words[0] == "Pss:")


def _write(target: int, part: memoryview, at: int) -> None:
    while part:
        done = os.pwrite(target, part, at)
        part, at = part[done:], at + done


def _mappings(pid: int, size: int) -> list[Mapping]:
    """Where a process has its RAM: the writable private mappings of one file that make up the size."""
    found: dict[tuple[str, str], list[Mapping]] = {}
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
        for line in lines:
            where, rights, offset, device, inode, *_ = line.split(maxsplit=5)
            if rights == "rw-p" and inode != "0":
                start, end = (int(word, 16) for word in where.split("-"))
                found.setdefault((device, inode), []).append(Mapping(start, end, int(offset, 16)))
    for mappings in found.values():
        if sum(one.end - one.start for one in mappings) == size:
            return mappings
    raise FileNotFoundError(errno.ENOENT, f"process {pid} has no private RAM of {size} bytes")


def _parts(pid: int, size: int) -> Iterator[Mapping]:
    """What a process has changed of its RAM, in pieces that are read at once."""
    for mapping in _mappings(pid, size):
        shift = mapping.offset - mapping.start
        for start, end in _changed(pid, mapping):
            for at in range(start, end, _READ_AT_ONCE):
                yield Mapping(at, min(at + _READ_AT_ONCE, end), at + shift)


def _batches(parts: Iterator[Mapping]) -> Iterator[list[Mapping]]:
    """As many parts together as room is asked for at once."""
    batch: list[Mapping] = []
    count = 0
    for part in parts:
        batch.append(part)
        count += part.end - part.start
        if count >= _CHECKED_AT_ONCE:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _changed(pid: int, mapping: Mapping) -> Iterator[tuple[int, int]]:
    """The stretches of a private mapping that are anonymous: the process's own."""
    table = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        begun = None
        for at in range(mapping.start, mapping.end, PAGE * _ENTRIES_AT_ONCE):
            count = min(_ENTRIES_AT_ONCE, (mapping.end - at) // PAGE)
            entries = os.pread(table, count * _ENTRY, at // PAGE * _ENTRY)
            if len(entries) != count * _ENTRY:
                raise ProcessLookupError(errno.ESRCH, f"process {pid} is gone")
            # No loop over all pages: the guest stands still meanwhile.
            own, page = entries[_FLAGS::_ENTRY].translate(_OWN), 0
            while page < count:
                turn = own.find(b"\0" if begun is not None else b"\1", page)
                if turn < 0:
                    break
                if begun is None:
                    begun = at + turn * PAGE
                else:
                    yield begun, at + turn * PAGE
                    begun = None
                page = turn
        if begun is not None:
            yield begun, mapping.end
    finally:
        os.close(table)
