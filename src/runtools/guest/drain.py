"""Output of what commands left behind: read and dropped, so that nobody dies of a closed pipe.

A command's answer is given when its own process ends; a server that it started in the background may
hold its output still. What comes there is counted, for that is a sign of life.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Final

_MAX_PIPES: Final = 1024
_PIECE: Final = 64 << 10


class Drain:
    """One thread, started when there is first something to drain."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None
        self._pipes: set[int] = set()

    def adopt(self, fd: int) -> None:
        """Take over the reading end of a pipe."""
        with self._lock:
            if len(self._pipes) >= _MAX_PIPES:
                os.close(fd)
                return
            if self._epoll is None:
                self._epoll = select.epoll()
                threading.Thread(target=self._run, args=(self._epoll,), daemon=True).start()
            self._pipes.add(fd)
            self._epoll.register(fd, select.EPOLLIN)

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for fd, _ in epoll.poll():
                data = os.read(fd, _PIECE)
                self.bytes += len(data)
                if not data:
                    with self._lock:
                        # Not left to close(): a command that is being forked holds a copy of it.
                        epoll.unregister(fd)
                        self._pipes.discard(fd)
                        os.close(fd)
