"""The wire between a host and the agent inside a sandbox: frames, versions, bounds.

A frame is a 4-byte big-endian length, a 1-byte kind and the payload. A connection begins with a
hello (JSON) and carries one operation at a time after it. `docs/guest-protocol.md` tells it whole.
This module is the only one that both sides import.
"""

from __future__ import annotations

import struct
from typing import Final

PORT: Final = 7709
HOST: Final = "10.0.2.2"  # where a host calls a machine from: its end of the machine's cable
VERSION: Final = 3  # 2 has streams to ports (`connect`), 3 has edits of files (`edit`)
SPOKEN: Final = tuple(v for v in (VERSION, VERSION - 1, VERSION - 2) if v > 0)

JSON: Final = 1
BYTES: Final = 2
END: Final = 3  # of bytes: an empty payload says that all came, a JSON error that it did not

HEADER: Final = struct.Struct(">IB")
MAX_HELLO: Final = 4096
MAX_JSON: Final = 8 << 20
MAX_BYTES: Final = 1 << 20
MAX_END: Final = 64 << 10
CHUNK: Final = 256 << 10  # what senders put into one frame of bytes

MAX_STDIN: Final = 16 << 20
MAX_OUTPUT: Final = 8 << 20
MAX_ENTRIES: Final = 10_000
MAX_CHANGES: Final = 1000  # in one answer about a watched folder
MAX_EDITED: Final = 8 << 20  # bytes of a file that is edited
MAX_LISTING: Final = 7 << 20  # JSON bytes of a listing, below MAX_JSON

_LIMITS: Final = {JSON: MAX_JSON, BYTES: MAX_BYTES, END: MAX_END}


class BadFrame(ValueError):
    """The other side does not speak this protocol or exceeds its bounds."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A whole frame.

    Raises:
        BadFrame: the payload exceeds what the other side may be sent.
    """
    if len(payload) > _LIMITS[kind]:
        raise BadFrame(f"{len(payload)} bytes do not fit into one frame of kind {kind}")
    return HEADER.pack(len(payload), kind) + payload


def parse_header(data: bytes, *, json_limit: int = MAX_JSON) -> tuple[int, int]:
    """Kind and length of the payload that follows these five bytes.

    Raises:
        BadFrame: no such kind, or more than may be sent in one frame of it.
    """
    length, kind = HEADER.unpack(data)
    limit = json_limit if kind == JSON else _LIMITS.get(kind)
    if limit is None:
        raise BadFrame(f"no frame has kind {kind}")
    if length > limit:
        raise BadFrame(f"a frame of kind {kind} with {length} bytes exceeds {limit}")
    return kind, length


def body_frames(data: bytes | memoryview) -> list[bytes]:
    """The frames that carry these bytes as a body, its end included."""
    view = memoryview(data)
    frames = [frame(BYTES, bytes(view[i : i + CHUNK])) for i in range(0, len(view), CHUNK)]
    frames.append(frame(END))
    return frames


def choose_version(offered: object) -> int | None:
    """The newest version that both sides speak."""
    if not isinstance(offered, list):
        return None
    common = [v for v in SPOKEN if v in offered]
    return max(common) if common else None
