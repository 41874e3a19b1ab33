"""A file of 2 GB, up and down through SDK and API: how fast, and how much memory each part took for it."""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from bench.memory import begin_anew, peak_mb, resident_mb
from bench.section import Bench
from bench.table import Row, Series, at_most, row
from runtools.platform.kit.config import load
from runtools.testing.real_platform import Platform

SIZE_MB = 2048
MOST_MB = 64  # that a part may take for it
_PIECE_MB = 4


def measure(bench: Bench) -> Iterator[Row]:
    """One file, whose bytes are nowhere alike."""
    size_mb = SIZE_MB // 8 if bench.quick else SIZE_MB
    platform = Platform(load().home, bench.rt)
    parts = {"api": platform.pid("api"), "host": platform.pid("host"), "SDK": os.getpid()}
    sandbox = bench.rt.sandboxes.create(disk_mb=size_mb + 1024, idle_timeout_seconds=0)
    for pid in parts.values():
        begin_anew(pid)
    before = {part: resident_mb(pid) for part, pid in parts.items()}
    source = _Source(size_mb)
    began = time.perf_counter()
    entry = sandbox.files.write("/workspace/bulk", source.pieces())
    up = size_mb / (time.perf_counter() - began)
    assert entry.size == size_mb << 20
    with tempfile.TemporaryFile(dir=bench.work) as file:
        began = time.perf_counter()
        sandbox.files.download("/workspace/bulk", file)
        down = size_mb / (time.perf_counter() - began)
        took = {part: peak_mb(pid) - before[part] for part, pid in parts.items()}
        assert source.sum == _sum_of(file)
    sandbox.destroy()
    yield row(f"{size_mb} MB up", Series([up]), unit="MB/s")
    yield row(f"{size_mb} MB down", Series([down]), unit="MB/s")
    for part, memory in took.items():
        yield row(
            f"memory that the {part} took", Series([memory]), unit="MB", wanted=[at_most(MOST_MB)]
        )


class _Source:
    """Random bytes, and their check sum as far as they were read."""

    def __init__(self, size_mb: int) -> None:
        self._count = size_mb // _PIECE_MB
        self.sum = 0

    def pieces(self) -> Iterator[bytes]:
        block = bytearray(os.urandom(_PIECE_MB << 20))
        for number in range(self._count):
            block[:8] = number.to_bytes(8, "big")
            piece = bytes(block)
            self.sum = zlib.crc32(piece, self.sum)
            yield piece


def _sum_of(file: BinaryIO) -> int:
    total = 0
    file.seek(0)
    while piece := file.read(_PIECE_MB << 20):
        total = zlib.crc32(piece, total)
    return total
