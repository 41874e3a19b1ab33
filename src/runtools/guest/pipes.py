"""The pipes of a command: what it prints, kept up to a bound, and what it has still to read."""

from __future__ import annotations

import array
import fcntl
import os
import termios
from typing import Final

PIECE: Final = 64 << 10


class Pipe:
    """One stream of a command: keeps up to a bound, counts and drops the rest."""

    __slots__ = ("fd", "keep", "open", "parts", "size", "truncated")

    def __init__(self, fd: int, keep: int) -> None:
        self.fd = fd
        self.keep = keep
        self.open = True
        self.parts: list[bytes] = []
        self.size = 0
        self.truncated = False

    def read(self, count: int = PIECE) -> int:
        """Read once; 0 at the end of the stream."""
        data = os.read(self.fd, count)
        room = self.keep - self.size
        if len(data) > room:
            self.truncated = True
        if data and room > 0:
            kept = data if len(data) <= room else data[:room]
            self.parts.append(kept)
            self.size += len(kept)
        return len(data)

    def read_rest(self) -> int:
        """Read what the pipe holds now, and no more: others may go on writing."""
        waiting = array.array("i", (0,))
        fcntl.ioctl(self.fd, termios.FIONREAD, waiting)
        left = waiting[0]
        while left > 0:
            left -= self.read(left) or left
        return waiting[0]


class Feed:
    """What is still to be written to a command's stdin."""

    __slots__ = ("fd", "left")

    def __init__(self, fd: int, left: memoryview) -> None:
        self.fd = fd
        self.left = left

    def write(self) -> bool:
        """Write what fits; False when all is written or nobody reads any more."""
        try:
            self.left = self.left[os.write(self.fd, self.left) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            self.left = self.left[:0]
        return bool(self.left)

    def close(self) -> None:
        """End of the input."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
