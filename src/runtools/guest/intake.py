"""What a durable process is given to read: it goes into its pipe or terminal as that takes it."""

from __future__ import annotations

import os
import select
import termios
from typing import Final

from runtools.guest.problems import Problem

_PIECE: Final = 64 << 10
_MOST_PENDING: Final = 256 << 10


class Intake:
    """One process's.

    Args:
        fd: where it goes; -1: nothing does.
        poll: is asked to tell of it.
    """

    def __init__(self, fd: int, poll: select.poll, *, terminal: bool, is_open: bool) -> None:
        self.fd = fd
        self.is_open = is_open
        self.taken = 0
        self._poll = poll
        self._terminal = terminal
        self._hung_up = False
        self._pending = b""
        self._last = b"\n"
        if fd >= 0 and not terminal:
            poll.register(fd, 0)  # tells when nobody has the other end any more

    def has_room(self, data: bytes) -> bool:
        """Whether it can be taken whole, now.

        Raises:
            Problem: ``input_closed``.
        """
        if not self.is_open:
            raise Problem("input_closed", "its input is closed")
        return len(self._pending) + len(data) <= _MOST_PENDING

    def take(self, data: bytes) -> None:
        """Take it whole."""
        self.taken += len(data)
        self._pending += data
        self._last = data[-1:] or self._last
        self._push()

    def close(self) -> None:
        """Nothing more comes; what has come is given first."""
        if not self.is_open:
            return
        self.is_open = False
        if self._terminal:
            # In the middle of a line the first one only hands over what there is of it.
            key = termios.tcgetattr(self.fd)[6][termios.VEOF]
            self._pending += key if self._last in b"\r\n" else key * 2
        self._push()

    def heard(self, event: int) -> None:
        """The poll has told of it."""
        if event & select.POLLERR:
            self._leave()
        elif event & select.POLLOUT:
            self._push()

    def hang_up(self) -> None:
        """The terminal was hung up."""
        self._hung_up = True

    def end(self) -> None:
        """The process has ended: nobody takes what is left."""
        self._pending, self.is_open = b"", False
        if self.fd >= 0:
            self._leave()

    def _push(self) -> None:
        """Give it what it takes."""
        try:
            while self._pending:
                count = os.write(self.fd, self._pending[:_PIECE])
                self._pending = self._pending[count:]
        except BlockingIOError:
            pass
        except OSError:  # nobody will ever read it
            self._pending, self.is_open = b"", False
        more = select.POLLOUT if self._pending else 0
        if self._terminal:
            if not self._hung_up:
                self._poll.register(self.fd, select.POLLIN | more)
        elif more or self.is_open:
            self._poll.register(self.fd, more)
        else:
            self._leave()

    def _leave(self) -> None:
        """Close the pipe: nobody has its other end any more, or all was said."""
        if self._terminal:
            return
        self._pending, self.is_open = b"", False
        self._poll.unregister(self.fd)
        os.close(self.fd)
        self.fd = -1
