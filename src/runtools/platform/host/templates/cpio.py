"""Writing cpio archives of the kind that a kernel unpacks as its first root ("newc")."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_HEADER = "070701" + "{:08X}" * 13
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in an archive, owned by root. ``mode`` holds its kind and its permissions.

    ``data`` is a file's content or a link's target. ``device`` is (major, minor) of a device.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str, permissions: int = 0o755) -> Entry:
    """A folder."""
    return Entry(name, stat.S_IFDIR | permissions)


def file(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    """A file."""
    return Entry(name, stat.S_IFREG | permissions, data)


def link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def device(name: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """A character device."""
    return Entry(name, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """A whole archive. Archives put one after the other are unpacked one after the other."""
    out = bytearray()
    number = 0
    for number, entry in enumerate(entries, start=1):
        out += _one(entry, number)
    out += _one(Entry(_TRAILER, 0), number + 1)
    out += bytes(-len(out) % 512)
    return bytes(out)


def _one(entry: Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    major, minor = entry.device
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, major, minor, len(name), 0)
    head = _HEADER.format(*fields).encode() + name
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)
