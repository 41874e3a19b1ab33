"""System calls that Python has no words for. Most change the calling thread alone, and for good."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWNET = 0x4000_0000
_CLONE_FS = 0x200

MOUNT_READ_ONLY = 0x1
MOUNT_NO_SUID = 0x2
MOUNT_NO_DEVICES = 0x4
MOUNT_NO_EXEC = 0x8

_MS_BIND = 0x1000
_MS_PRIVATE_ALL = 0x4_0000 | 0x4000
_MS_NO_SUID_NO_DEVICES = 0x2 | 0x4
_UNMOUNT_DETACHED = 2
_HERE = -100
_EMPTY_PATH = 0x1000
_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_FROM_EMPTY_PATH = 0x4
_DROP_FROM_BOUNDING_SET = 24
_SET_MODE_FILTER = 1

# By their numbers on x86-64, where glibc has no function for them (yet).
_PIVOT_ROOT = 155
_SECCOMP = 317
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_MOUNT_SETATTR = 442

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *words))


def unshare(*kinds: int) -> None:
    """Move the calling thread into new namespaces of these kinds."""
    _checked(_libc.unshare(sum(kinds)))


def unshare_folders() -> None:
    """Give the calling thread a root and a working folder of its own."""
    _checked(_libc.unshare(_CLONE_FS))


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into a namespace."""
    _checked(_libc.setns(fd, kind))


def keep_mounts_apart() -> None:
    """Let nothing that is mounted from here on be seen in any other mount namespace."""
    _checked(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_PRIVATE_ALL), None))


def mount_tmpfs(target: str, options: str) -> None:
    """An empty file system in memory, without devices and set-user-id programs."""
    flags = ctypes.c_ulong(_MS_NO_SUID_NO_DEVICES)
    _checked(_libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", flags, options.encode()))


def bind(source: str, target: str) -> None:
    """Show a file or folder at another place, too."""
    flags = ctypes.c_ulong(_MS_BIND)
    _checked(_libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None))


def restrict_mounts(target: str, attributes: int, *, below: bool = False) -> None:
    """Set ``MOUNT_…`` attributes on a mount, and on all below it."""
    flags = _RECURSIVE if below else 0
    _set_attributes(_HERE, os.fsencode(target), flags, attributes)


def pivot_root(folder: str) -> None:
    """Make a mount the root of the mount namespace, and let go of all that was there before."""
    os.chdir(folder)
    _call(_PIVOT_ROOT, b".", b".")
    _checked(_libc.umount2(b".", _UNMOUNT_DETACHED))
    os.chdir("/")


def detached(fd: int, attributes: int) -> int:
    """A mount that shows an open file or folder and is nowhere yet, with ``MOUNT_…`` attributes."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _EMPTY_PATH
    tree = _call(_OPEN_TREE, fd, b"", flags)
    try:
        _set_attributes(tree, b"", _EMPTY_PATH, attributes)
    except BaseException:
        os.close(tree)
        raise
    return tree


def attach(tree: int, target: str) -> None:
    """Put a detached mount where the calling thread sees it."""
    _call(_MOVE_MOUNT, tree, b"", _HERE, os.fsencode(target), _MOVE_FROM_EMPTY_PATH)


def _set_attributes(folder: int, path: bytes, flags: int, attributes: int) -> None:
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    buffer = ctypes.create_string_buffer(wanted, len(wanted))
    _call(_MOUNT_SETATTR, folder, path, flags, buffer, len(wanted))


def keep_capabilities(kept: set[int]) -> None:
    """Take every other capability from what the calling thread starts, for good."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in set(range(last + 1)) - kept:
        _checked(_libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0))


def filter_system_calls(program: bytes) -> None:
    """Have a BPF program judge every system call of the calling thread, and of what it starts."""
    buffer = ctypes.create_string_buffer(program, len(program))
    heading = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _call(_SECCOMP, _SET_MODE_FILTER, 0, ctypes.create_string_buffer(heading, len(heading)))
