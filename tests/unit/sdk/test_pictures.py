"""What a model can be shown is seen by its bytes."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from runtools.sdk import pictures

WHOLE = {
    "image/png": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg==",
    "image/gif": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    "image/webp": "UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA",
    "image/jpeg": "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP////////////////////////////////////////////////"
    "//////////////////////////////////////wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxD/2Q==",
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_ones_are_known(kind: str) -> None:
    data = base64.b64decode(WHOLE[kind])
    assert pictures.kind_of(data) == kind
    assert pictures.fault(data) is None


@pytest.mark.parametrize("kind", WHOLE)
def test_those_that_are_cut_off_are_not_whole(kind: str) -> None:
    data = base64.b64decode(WHOLE[kind])
    assert f"begins like {kind} and is not whole" in str(pictures.fault(data[: len(data) - 8]))


@pytest.mark.parametrize(
    "data", [b"", b"<svg xmlns='x'/>", b"RIFF1234AVI ", b"BM1234", b"%PDF-1.7"]
)
def test_others_are_none(data: bytes) -> None:
    assert pictures.fault(data) == "is no PNG, JPEG, GIF or WebP picture"


def png(width: int, height: int, filler: int = 0) -> bytes:
    """A PNG of that size, with so many bytes in a chunk that nobody reads."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", head),
        chunk(b"teXt", b"x" * filler),
        chunk(b"IDAT", b""),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_byte_that_changed_is_seen() -> None:
    data = bytearray(png(1, 1, 100))
    assert pictures.fault(bytes(data)) is None
    data[70] ^= 1
    assert "not whole" in str(pictures.fault(bytes(data)))


def test_large_ones_are_refused() -> None:
    assert "8001 x 1;" in str(pictures.fault(png(8001, 1)))
    assert "0 x 1;" in str(pictures.fault(png(0, 1)))
    assert "at most 3750000" in str(pictures.fault(png(1, 1, pictures.MAX_BYTES)))
