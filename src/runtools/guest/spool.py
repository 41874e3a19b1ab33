"""Output kept on disk: per stream a row of segments named by the offset at which they begin.

    output.0  output.2097152  …    both streams as they came
    stdout.0  …    stderr.0  …     each apart (a terminal has only the first)

What a row holds is told by the names and sizes of its files alone. The oldest segment goes when another
would exceed the bound. What could not be written (a full disk) is a gap between two segments: the offset
goes on, the bytes are missing, and a reader is told how many.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Final

_PARTS: Final = (
    8  # segments of a row: so much of the bound may be missing right after one was dropped
)


class Row:
    """One stream, written by its holder."""

    def __init__(self, folder: int, name: str, keep: int) -> None:
        self.end = 0
        self._folder = folder
        self._name = name
        self._keep = keep
        self._most = keep // _PARTS
        self._files: deque[tuple[str, int]] = deque()
        self._kept = 0  # bytes in all files but the open one
        self._fd = -1
        self._size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Keep more, as far as the disk takes it. Never fails."""
        view = memoryview(data)
        if len(view) > self._keep:  # only the newest would stay
            self._skip(len(view) - self._keep)
            view = view[-self._keep :]
        while view:
            try:
                if self._fd < 0 or self._size >= self._most:
                    self._open()
                count = os.write(self._fd, view[: self._most - self._size])
            except OSError:
                self._skip(len(view))
                return
            self._size += count
            self.end += count
            view = view[count:]

    def close(self) -> None:
        """No more will come."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _skip(self, count: int) -> None:
        """Leave a gap."""
        self._retire()
        self.end += count

    def _open(self) -> None:
        self._retire()
        while self._files and self._kept + self._most > self._keep:
            name, size = self._files.popleft()
            os.unlink(name, dir_fd=self._folder)
            self._kept -= size
        name = f"{self._name}.{self.end}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(name, flags, 0o600, dir_fd=self._folder)
        self._files.append((name, 0))

    def _retire(self) -> None:
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        name, _ = self._files.pop()
        if self._size:
            self._files.append((name, self._size))
            self._kept += self._size
            self._size = 0
        else:
            os.unlink(name, dir_fd=self._folder)


class Tail:
    """A reader of one stream; keeps the segment open in which it stands."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._name = name
        self._fd = -1
        self._first = 0

    def read(self, start: int, limit: int, end: int) -> tuple[int, bytes]:
        """Bytes from ``start`` on, and where they really begin: beyond what is no longer kept.

        ``end`` is how far the stream has come. No bytes, when there are none up to it.
        """
        where, data = self._read(start, limit, end)
        while data and len(data) < limit:  # the next segment's, unless there is a gap before it
            at = where + len(data)
            after, more = self._read(at, limit - len(data), end)
            if not more or after != at:
                break
            data += more
        return where, data

    def close(self) -> None:
        """Read no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self, start: int, limit: int, end: int) -> tuple[int, bytes]:
        """As `read`, but from one segment."""
        limit = min(limit, end - start)
        if limit <= 0:
            return start, b""
        if self._fd >= 0 and start >= self._first:
            data = os.pread(self._fd, limit, start - self._first)
            if data:
                return start, data
        return self._find(start, limit, end)

    def _find(self, start: int, limit: int, end: int) -> tuple[int, bytes]:
        """Read from the segment that has the byte, or else from the next that has any."""
        while True:
            firsts = segments(self._folder, self._name)
            before = [first for first in firsts if first <= start]
            for first in before[-1:] + firsts[len(before) :]:
                if first >= end:
                    return end, b""
                if not self._open(first):
                    break  # dropped since it was listed: look again
                where = max(start, first)
                data = os.pread(self._fd, min(limit, end - where), where - first)
                if data:
                    return where, data
            else:
                return end, b""

    def _open(self, first: int) -> bool:
        """Open a segment; False when it was dropped meanwhile."""
        self.close()
        try:
            self._fd = os.open(f"{self._folder}/{self._name}.{first}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._first = first
        return True


def segments(folder: str, name: str) -> list[int]:
    """The offsets at which the segments of a stream begin, ascending."""
    prefix = f"{name}."
    found = [n.removeprefix(prefix) for n in os.listdir(folder) if n.startswith(prefix)]
    return sorted(int(n) for n in found if n.isdigit())


def end_of(folder: str, name: str) -> int:
    """How far a stream has come at least: the end of its last segment."""
    last = max(segments(folder, name), default=None)
    return 0 if last is None else last + os.stat(f"{folder}/{name}.{last}").st_size


def kept_from(folder: str, name: str, end: int) -> int:
    """The first byte that can still be read."""
    return min(segments(folder, name), default=end)
