"""The kernel's inotify, by ctypes: one watch for each folder, and the events that are read from them."""

from __future__ import annotations

import os
import select
import struct
from functools import cache
from typing import Any, Final, NamedTuple

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
IS_FOLDER: Final = 0x40000000

_WANTED: Final = (
    MODIFY
    | ATTRIB
    | CLOSE_WRITE
    | MOVED_FROM
    | MOVED_TO
    | CREATE
    | DELETE
    | DELETE_SELF
    | MOVE_SELF
)
_ONLY_FOLDERS: Final = 0x01000000
_NO_LINKS: Final = 0x02000000
_NOT_UNLINKED: Final = 0x04000000
_MASK: Final = _WANTED | _ONLY_FOLDERS | _NO_LINKS | _NOT_UNLINKED

_HEAD: Final = struct.Struct("iIII")
_READ: Final = 256 << 10


class Event(NamedTuple):
    """What happened to an entry of a watched folder, or (without a name) to the folder itself."""

    wd: int
    mask: int
    cookie: int
    name: bytes


class Inotify:
    """One queue of the kernel's.

    Raises:
        OSError: ENOSPC: the kernel keeps no more watches; EMFILE: no more queues.
    """

    def __init__(self) -> None:
        self.fd = _checked(_libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def add(self, place: bytes) -> int:
        """Watch a folder, never through a link; the same folder gets the same number again."""
        return _checked(_libc().inotify_add_watch(self.fd, place, _MASK))

    def remove(self, wd: int) -> None:
        """Stop watching; one that the kernel has dropped by itself is no error."""
        _libc().inotify_rm_watch(self.fd, wd)

    def wait(self, seconds: float, wake: int = -1) -> bool:
        """Whether there is something to read, at the latest after so long or when ``wake`` is readable."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if wake >= 0:
            poll.register(wake, select.POLLIN)
        return any(fd == self.fd for fd, _ in poll.poll(max(0, round(seconds * 1000))))

    def read(self) -> list[Event]:
        """The events that there are; none when there is nothing at the moment."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return []
        events = []
        at = 0
        while at < len(data):
            wd, mask, cookie, size = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            events.append(Event(wd, mask, cookie, data[at : at + size].rstrip(b"\0")))
            at += size
        return events

    def close(self) -> None:
        """Drop all watches."""
        os.close(self.fd)


@cache
def _libc() -> Any:
    import ctypes  # noqa: PLC0415 - 2 MB that an agent without watches need not have

    library = ctypes.CDLL(None, use_errno=True)
    library.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    return library


def _checked(result: int) -> int:
    if result < 0:
        import ctypes  # noqa: PLC0415 - it is there

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
