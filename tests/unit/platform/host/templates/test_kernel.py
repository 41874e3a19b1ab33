"""What a kernel is told, and getting it out of its package's wrapping."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from runtools.platform.host.templates.kernel import host_tsc_khz, kernel_arguments, unpack_kernel
from runtools.platform.kit import process

ELF = b"\x7fELF" + b"kernel" * 1000


def boot_image(packed: bytes) -> bytes:
    """A file as distributions ship: a setup part of one sector after the first, then the payload."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    payload = packed + struct.pack("<I", len(ELF))
    struct.pack_into("<II", head, 0x248, 64, len(payload))
    return bytes(head) + bytes(64) + payload + b"rest"


class TestArguments:
    def test_emulated_kernel_is_given_its_clock(self) -> None:
        words = kernel_arguments(2_596_132).split()
        assert {"tsc_early_khz=2596132", "tsc=reliable", "no_timer_check"} <= set(words)

    def test_hardware_keeps_its_own(self) -> None:
        assert "tsc" not in kernel_arguments(None)

    def test_console_and_end(self) -> None:
        assert {"console=ttyS0", "panic=-1", "reboot=t"} <= set(kernel_arguments(None).split())


class TestCounter:
    def test_two_measurements_agree(self) -> None:
        first = host_tsc_khz()
        host_tsc_khz.cache_clear()
        assert abs(host_tsc_khz() - first) < first / 1000

    def test_is_a_processors_frequency(self) -> None:
        assert 500_000 < host_tsc_khz() < 10_000_000


class TestUnpack:
    async def test_zstd(self, tmp_path: Path) -> None:
        packed = (await process.run(["zstd", "-q"], stdin=ELF)).stdout
        (tmp_path / "vmlinuz").write_bytes(boot_image(packed))
        await unpack_kernel(tmp_path / "vmlinuz", tmp_path / "kernel")
        assert (tmp_path / "kernel").read_bytes() == ELF

    async def test_gzip(self, tmp_path: Path) -> None:
        (tmp_path / "vmlinuz").write_bytes(boot_image(gzip.compress(ELF)))
        await unpack_kernel(tmp_path / "vmlinuz", tmp_path / "kernel")
        assert (tmp_path / "kernel").read_bytes() == ELF

    async def test_no_kernel(self, tmp_path: Path) -> None:
        (tmp_path / "vmlinuz").write_bytes(b"MZ" + bytes(4096))
        with pytest.raises(ValueError, match="no Linux kernel image"):
            await unpack_kernel(tmp_path / "vmlinuz", tmp_path / "kernel")

    async def test_unknown_packing(self, tmp_path: Path) -> None:
        (tmp_path / "vmlinuz").write_bytes(boot_image(b"BZh91AY" + bytes(100)))
        with pytest.raises(ValueError, match="packed in an unknown way"):
            await unpack_kernel(tmp_path / "vmlinuz", tmp_path / "kernel")

    async def test_no_elf_inside(self, tmp_path: Path) -> None:
        (tmp_path / "vmlinuz").write_bytes(boot_image(gzip.compress(b"not a kernel")))
        with pytest.raises(ValueError, match="holds no ELF"):
            await unpack_kernel(tmp_path / "vmlinuz", tmp_path / "kernel")
        assert not (tmp_path / "kernel").exists()
