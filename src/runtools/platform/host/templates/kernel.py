"""The kernel of a sandbox: unpacking it, what it is told, and the fact of this machine it needs for it."""

from __future__ import annotations

import ctypes
import mmap
import struct
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from runtools.platform.kit import process

# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = bytes.fromhex("0f3148c1e2204809d0c3")
_WINDOW_NS = 40_000_000


def kernel_arguments(tsc_khz: int | None) -> str:
    """The kernel command line.

    Args:
        tsc_khz: under emulation, the frequency of the host's time stamp counter (`host_tsc_khz`): a
            guest that must measure it itself hangs for ever on a busy machine, one boot in two. None
            with hardware virtualisation, where the guest has a better clock.
    """
    words = [
        "console=ttyS0 quiet loglevel=5",
        "panic=-1 reboot=t",
        "random.trust_cpu=on",
        "net.ifnames=0",
        # Security modules that nothing here uses, and whose programs cost an emulated boot a second.
        "lsm=landlock,yama audit=0",
    ]
    if tsc_khz is not None:
        words.append(f"tsc_early_khz={tsc_khz} tsc=reliable no_timer_check")
    return " ".join(words)


async def unpack_kernel(image: Path, out: Path) -> None:
    """Write the ELF kernel that is packed in a distribution's ``vmlinuz``.

    A VMM starts it directly (by its PVH entry; Firecracker takes nothing else), and an emulated CPU is
    spared the unpacking, which takes it a second.

    Raises:
        ValueError: it is no such image, or packed in a way that distributions do not use.
    """
    data = image.read_bytes()
    if data[0x202:0x206] != b"HdrS":
        raise ValueError(f"{image.name} is no Linux kernel image")
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (data[0x1F1] + 1) * 512 + offset
    packed = data[start : start + length - 4]  # the last four bytes tell the unpacked size
    if packed.startswith(b"\x28\xb5\x2f\xfd"):
        kernel = (await process.run(["zstd", "-dcq"], stdin=packed)).stdout
    elif packed.startswith(b"\x1f\x8b"):
        kernel = zlib.decompress(packed, wbits=31)
    else:
        raise ValueError(f"{image.name} is packed in an unknown way: {packed[:6].hex()}")
    if not kernel.startswith(b"\x7fELF"):
        raise ValueError(f"{image.name} holds no ELF kernel")
    out.write_bytes(kernel)


@cache
def host_tsc_khz() -> int:
    """The frequency of this machine's time stamp counter, in kHz.

    Measured, because no file says it: the kernel's log may be gone or closed, and /proc/cpuinfo tells
    the frequency at which a core happens to run. Two readings of the counter, 40 ms apart, against the
    raw monotonic clock; the pair that was taken with the least delay counts. x86-64 only.
    """
    with mmap.mmap(
        -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ) as page:
        page.write(_RDTSC)
        buffer = ctypes.c_char.from_buffer(page)
        try:
            read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(buffer))
            start_ns, start = _tightest(read)
            deadline = start_ns + _WINDOW_NS
            while time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) < deadline:
                time.sleep(0.005)
            end_ns, end = _tightest(read)
        finally:
            del buffer
    return round((end - start) * 1_000_000 / (end_ns - start_ns))


def _tightest(read: Callable[[], int]) -> tuple[int, int]:
    """The clock and the counter at the same moment, as nearly as 20 attempts get."""
    best = None
    for _ in range(20):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        ticks = int(read())
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, ticks)
    assert best is not None  # noqa: S101 - the loop ran
    return best[1], best[2]
