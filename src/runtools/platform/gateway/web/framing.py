"""Where bodies end, on their way through: bytes are counted, and chunks walked over.

Of chunked bodies the trailers are read line by line: what a head would not hand on goes no further there.
A body that ends with its connection is packed into chunks for whoever understands them, and one in chunks
is unpacked for whoever does not.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from runtools.platform.gateway.web import visitor

LAST_CHUNK: Final = b"0\r\n\r\n"
_MAX_LINE: Final = 4096  # of a chunk's size with its extensions, or of a trailer
_MAX_TRAILERS: Final = 64
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\0]*)?")
_TRAILER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[^\r\n\0]*")
# What a trailer may never say: how long a message is, who sends it and where to, who may see it, and what
# is a matter of one connection or of a head alone; nor what of a head goes no further, in either direction.
_NEVER: Final = frozenset(
    b"accept-ranges age authorization cache-control content-encoding content-length content-location "
    b"content-range content-security-policy content-type cookie date expect expires location max-forwards "
    b"origin proxy-authenticate range referer refresh retry-after set-cookie strict-transport-security "
    b"trailer transfer-encoding vary www-authenticate x-api-key".split()
).union(visitor.NOT_INWARD, visitor.NOT_OUTWARD)
_NEVER_SO: Final = (visitor.FORWARDED, b"x-runtools-", b"access-control-", b"sec-")


class BadBody(Exception):
    """It does not end where anybody could say."""


class Framing(Protocol):
    """Knows how much of what comes belongs to one body."""

    done: bool

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What of these bytes is to be handed on, and what does not belong to the body any more.

        Raises:
            BadBody: they do not fit.
        """
        ...


class Counted:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """See `Framing`."""
        left = self._left
        if len(data) <= left:
            self._left = left - len(data)
            self.done = self._left == 0
            return data, b""
        self._left, self.done = 0, True
        return data[:left], data[left:]


class Endless:
    """A body that ends with its connection."""

    done = False

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """See `Framing`."""
        return data, b""


class Chunked:
    """A body in chunks, trailers included.

    Args:
        unpacks: what the chunks hold is handed on, and nothing else of them.
    """

    def __init__(self, *, unpacks: bool = False) -> None:
        self.done = False
        self._unpacks = unpacks
        self._left = 0  # of the chunk's bytes
        self._line = b""  # of which the end has not come yet
        self._after_chunk = False  # an empty line is due
        self._trailers = -1  # so many have come, after the last chunk

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """See `Framing`."""
        at, goes = 0, list[bytes]()
        while at < len(data) and self._trailers < 0:
            if self._left:
                step = min(self._left, len(data) - at)
                if self._unpacks:
                    goes.append(data[at : at + step])
                self._left -= step
                at += step
                continue
            at, line = self._next_line(data, at)
            if line is not None:
                self._take_line(line)
        if not self._unpacks:
            goes.append(data[:at] if at < len(data) else data)
        while at < len(data) and not self.done:
            at, line = self._next_line(data, at)
            if line is not None and self._keeps_trailer(line) and not self._unpacks:
                goes.append(line)
        return goes[0] if len(goes) == 1 else b"".join(goes), data[at:]

    def _next_line(self, data: bytes, at: int) -> tuple[int, bytes | None]:
        """The place behind what was read, and the line, if it is whole."""
        end = data.find(b"\n", at)
        piece = data[at:] if end < 0 else data[at : end + 1]
        self._line += piece
        if len(self._line) > _MAX_LINE:
            raise BadBody("a line among chunks that is too long")
        if end < 0:
            return len(data), None
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise BadBody("a bare line feed among chunks")
        return end + 1, line

    def _take_line(self, line: bytes) -> None:
        text = line[:-2]
        if self._after_chunk:
            if text:
                raise BadBody("a chunk that is longer than it says")
            self._after_chunk = False
            return
        found = _SIZE.fullmatch(text)
        if found is None:
            raise BadBody("a chunk without a size")
        self._left = int(found[1], 16)
        self._after_chunk = self._left > 0
        self._trailers = -1 if self._left else 0

    def _keeps_trailer(self, line: bytes) -> bool:
        """Whether a line after the last chunk goes on; the empty one ends the body."""
        if line == b"\r\n":
            self.done = True
            return True
        self._trailers += 1
        found = _TRAILER.fullmatch(line[:-2])
        if self._trailers > _MAX_TRAILERS or found is None:
            raise BadBody("trailers that are none")
        name = found[1].lower().replace(b"_", b"-")  # some servers read both as one
        return name not in _NEVER and not name.startswith(_NEVER_SO)


def chunk(data: bytes) -> bytes:
    """Bytes, of which there are some, as a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def of(length: int | None, *, unpacks: bool = False) -> Framing:
    """By what a head says: bytes, None for chunks (see `Chunked`), -1 for the connection's end."""
    if length is None:
        return Chunked(unpacks=unpacks)
    return Endless() if length < 0 else Counted(length)
