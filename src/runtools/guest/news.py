"""Hearing from a holder that there is more output, or the end."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Final

from runtools.guest.conn import Conn, Gone
from runtools.guest.packets import LIVE, READY, SEEN, Live
from runtools.guest.record import Look, Record

_MOMENT_MS: Final = 10.0
_TOLD: Final = len(READY) + LIVE.size


class News:
    """Waits for more of a process, as long as somebody is there to be told."""

    def __init__(self, record: Record, conn: Conn) -> None:
        self._record = record
        self._poll = select.poll()
        self._poll.register(conn.sock, select.POLLIN | select.POLLRDHUP)
        self._sock: socket.socket | None = None
        self._told: Live | None = None
        with contextlib.suppress(OSError):  # over
            self._sock = record.connect()
            self._poll.register(self._sock, select.POLLIN)

    def next(self, seen: Look) -> Look:
        """How it stands once there is more output than was seen, or when it is over.

        The holder has told how; only when it did not, or is gone, the record's files are looked into.

        Raises:
            Gone: nobody wants to know any more.
        """
        self._told = None
        self.wait(seen.live.output)
        return self._record.look() if self._told is None else Look(self._told, None, lost=False)

    def wait(self, seen: int, deadline: float | None = None) -> bool:
        """Until there is more output than was seen, or the end; False when time was up before.

        Raises:
            Gone: nobody wants to know any more.
        """
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if self._sock is None:  # between the holder's last word and its end
            left = _MOMENT_MS if left is None else min(left, _MOMENT_MS)
        else:
            try:
                self._sock.send(b"?" + SEEN.pack(seen))
            except OSError:
                self._lose()
                return True
        ready = dict(self._poll.poll(left))
        if self._sock is not None and self._sock.fileno() in ready:
            try:
                told = self._sock.recv(_TOLD)
            except OSError:
                told = b""
            if not told:
                self._lose()
            elif len(told) == _TOLD:
                self._told = Live(*LIVE.unpack(told[len(READY) :]))
        elif ready:
            raise Gone("it wants no more")
        return bool(ready) or deadline is None or time.monotonic() < deadline

    def _lose(self) -> None:
        """The holder is gone."""
        if self._sock is not None:
            self._poll.unregister(self._sock)
            self.close()

    def close(self) -> None:
        """No more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
