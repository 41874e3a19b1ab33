"""The terminal of the person: raw while a shell is shown in it, and always given back as it was."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

_SIZE = struct.Struct("HHHH")
_ENTER_KEYS = b"\r\n"
_ALTERNATE, _ORDINARY = b"\x1b[?1049h", b"\x1b[?1049l"
# Colours, cursor, cursor keys, mouse and bracketed paste, as a shell expects them.
_SOBER: Final = (
    b"\x1b[0m\x1b[?25h\x1b[?1l\x1b>\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"
)


class Escape:
    """Finds the keys Enter ~ . in what is typed; ~ twice after Enter is one."""

    def __init__(self) -> None:
        self._begins = True
        self._held = False
        self.detached = False

    def feed(self, typed: bytes) -> bytes:
        """What goes to the process; nothing after the keys that detach."""
        passed = bytearray()
        for key in typed:
            if self._held:
                self._held = False
                if key == ord("."):
                    self.detached = True
                    return bytes(passed)
                if key != ord("~"):
                    passed += b"~"
            elif self._begins and key == ord("~"):
                self._held, self._begins = True, False
                continue
            passed.append(key)
            self._begins = key in _ENTER_KEYS
        return bytes(passed)


class Screen:
    """What the process draws on. It may leave in the middle of a full-screen program."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._tail = b""
        self._alternate = False

    def write(self, data: bytes) -> None:
        """Draw all of it."""
        seen = self._tail + data
        on, off = seen.rfind(_ALTERNATE), seen.rfind(_ORDINARY)
        if max(on, off) >= 0:
            self._alternate = on > off
        self._tail = seen[-len(_ALTERNATE) + 1 :]
        self._put(data)

    def say(self, text: str) -> None:
        """A line of ours."""
        self._put(f"\r\nruntools: {text}\r\n".encode())

    def sober(self) -> None:
        """Undo what a program that was left may have set."""
        with suppress(OSError):
            self._put((_ORDINARY if self._alternate else b"") + _SOBER)

    def _put(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                select.select([], [self._fd], [])


def size(fd: int) -> tuple[int, int]:
    """Rows and columns; 24 by 80 where the terminal does not know."""
    packed = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(_SIZE.size))
    rows, columns, _, _ = _SIZE.unpack(packed)
    return min(rows or 24, 1000), min(columns or 80, 1000)


@contextmanager
def given_back(fd: int) -> Iterator[None]:
    """The terminal is in the end as it was, also when a signal ends the process."""
    before = termios.tcgetattr(fd)
    ends = (signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, _end) for number in ends}
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal itself is gone
            termios.tcsetattr(fd, termios.TCSANOW, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Every key comes through as it is, as long as this lasts."""
    with given_back(fd):
        tty.setraw(fd, termios.TCSANOW)
        yield


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
