"""The sandbox's writable disk: grown while it is mounted, and written out before it is copied."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from typing import Final

from runtools.guest.problems import Problem, of_errno

_RESIZE_EXT4: Final = 0x40086610  # EXT4_IOC_RESIZE_FS, with the new number of blocks
_PATIENCE_SECONDS: Final = 5.0
_STEP_SECONDS: Final = 0.02


def grow(device: str, wanted: int) -> int:
    """Let the ext4 file system on a device fill it; returns the file system's size in bytes.

    With ``wanted`` it first waits until the kernel has seen that the device has so many bytes.

    Raises:
        Problem: it is not mounted, or the kernel refuses.
    """
    mount = _mount_of(device)
    try:
        size = _device_size(device, wanted)
        fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            block = os.fstatvfs(fd).f_bsize
            fcntl.ioctl(fd, _RESIZE_EXT4, struct.pack("=Q", size // block))
            now = os.fstatvfs(fd)
            return now.f_blocks * now.f_frsize
        finally:
            os.close(fd)
    except OSError as exc:
        raise of_errno(exc, device) from exc


def _mount_of(device: str) -> str:
    with open("/proc/mounts") as file:
        for line in file:
            source, mount, kind, *_ = line.split()
            if source == device and kind == "ext4":
                return mount.replace("\\040", " ")
    raise Problem("file_missing", f"{device} is not mounted as ext4 inside")


def _device_size(device: str, wanted: int) -> int:
    # The kernel learns of a new size by an interrupt, a little after the VMM was told.
    end = time.monotonic() + _PATIENCE_SECONDS
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            size = os.lseek(fd, 0, os.SEEK_END)
            if size >= wanted:
                return size
            if time.monotonic() > end:
                raise Problem("file_error", f"{device} has {size} bytes, not {wanted}")
            time.sleep(_STEP_SECONDS)
    finally:
        os.close(fd)
