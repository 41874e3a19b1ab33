"""Pictures as providers of models take them: known by their bytes, whatever somebody calls them. Pure.

A provider that refuses a picture refuses every request that shows it: in a thread that would be all from
then on. So what is no whole picture of a kind and size that they take never gets into one.
"""

from __future__ import annotations

import zlib
from typing import Final, Literal

MediaType = Literal["image/png", "image/jpeg", "image/gif", "image/webp"]

MAX_BYTES: Final = 3_750_000
"""In base64 that is the 5 MB which the strictest provider takes."""
MAX_SIDE: Final = 8000
"""Pixels."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


def kind_of(data: bytes) -> MediaType | None:
    """What it begins like; None: like nothing that a model can be shown."""
    if data.startswith(_PNG):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def fault(data: bytes) -> str | None:
    """Why a model cannot be shown it, in words that follow its name; None: it can."""
    kind = kind_of(data)
    if kind is None:
        return "is no PNG, JPEG, GIF or WebP picture"
    if len(data) > MAX_BYTES:
        return f"is a picture of {len(data)} bytes; at most {MAX_BYTES} can be shown"
    size = _SIZES[kind](data)
    if size is None:
        return f"begins like {kind} and is not whole"
    width, height = size
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        return f"is a picture of {width} x {height}; each side may have {MAX_SIDE} pixels"
    return None


def _png(data: bytes) -> tuple[int, int] | None:
    """Its size, where all of its chunks are there and as they were written."""
    at, size, has_data = len(_PNG), None, False
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        name, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[at + 4 : end]) != int.from_bytes(
            data[end : end + 4]
        ):
            return None
        if size is None:
            if name != b"IHDR" or length != 13:
                return None
            size = int.from_bytes(data[at + 8 : at + 12]), int.from_bytes(data[at + 12 : at + 16])
        has_data = has_data or name == b"IDAT"
        if name == b"IEND":
            return size if has_data else None
        at = end + 4
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Its size, where there is a frame, and an end."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # it is filled up in front
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        if marker in _START_OF_FRAME:
            frame = data[at + 5 : at + 9]
            ends = data.rfind(b"\xff\xd9") > at
            return (int.from_bytes(frame[2:]), int.from_bytes(frame[:2])) if ends else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _gif(data: bytes) -> tuple[int, int] | None:
    ends = b";" in data[13:]
    return (
        (int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"))
        if ends
        else None
    )


def _webp(data: bytes) -> tuple[int, int] | None:
    if int.from_bytes(data[4:8], "little") + 8 > len(data) + 1 or len(data) < 30:
        return None
    form = data[12:16]
    if form == b"VP8X":
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    if form == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = data[26:28], data[28:30]
        return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF
    return None


_SIZES: Final = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif, "image/webp": _webp}
