"""Where bodies end, on their way through: bytes are counted and chunks walked over, nothing is unpacked."""

from __future__ import annotations

import re
from typing import Final, Protocol

_MAX_LINE: Final = 4096  # of a chunk's size with its extensions, or of a trailer
_MAX_TRAILERS: Final = 64
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\0]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\0]*")


class BadBody(Exception):
    """It does not end where anybody could say."""


class Framing(Protocol):
    """Knows how much of what comes belongs to one body."""

    done: bool

    def take(self, data: bytes) -> int:
        """How many of these bytes belong to it.

        Raises:
            BadBody: they do not fit.
        """
        ...


class Counted:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def take(self, data: bytes) -> int:
        """See `Framing`."""
        count = min(len(data), self._left)
        self._left -= count
        self.done = self._left == 0
        return count


class Endless:
    """A body that ends with its connection."""

    done = False

    def take(self, data: bytes) -> int:
        """See `Framing`."""
        return len(data)


class Chunked:
    """A body in chunks, trailers included."""

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # of the chunk's bytes
        self._line = b""  # of which the end has not come yet
        self._after_chunk = False  # an empty line is due
        self._trailers = -1  # so many have come, after the last chunk

    def take(self, data: bytes) -> int:
        """See `Framing`."""
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at)
            piece = data[at:] if end < 0 else data[at : end + 1]
            at += len(piece)
            self._line += piece
            if len(self._line) > _MAX_LINE:
                raise BadBody("a line among chunks that is too long")
            if end >= 0:
                line, self._line = self._line, b""
                self._take_line(line)
        return at

    def _take_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise BadBody("a bare line feed among chunks")
        text = line[:-2]
        if self._after_chunk:
            if text:
                raise BadBody("a chunk that is longer than it says")
            self._after_chunk = False
        elif self._trailers >= 0:
            self._take_trailer(text)
        else:
            found = _SIZE.fullmatch(text)
            if found is None:
                raise BadBody("a chunk without a size")
            self._left = int(found[1], 16)
            self._after_chunk = self._left > 0
            self._trailers = -1 if self._left else 0

    def _take_trailer(self, text: bytes) -> None:
        if not text:
            self.done = True
            return
        self._trailers += 1
        if self._trailers > _MAX_TRAILERS or _TRAILER.fullmatch(text) is None:
            raise BadBody("trailers that are none")


def of(length: int | None) -> Framing:
    """By what a head says: bytes, None for chunks, -1 for the connection's end."""
    if length is None:
        return Chunked()
    return Endless() if length < 0 else Counted(length)
