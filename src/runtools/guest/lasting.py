"""The calls that may last: so many at once, that threads are left for those which are answered at once.

A command, a wait, a copy of a tree and a transfer take their thread for as long as somebody inside or the
other side likes. Where each thread had one of them, nobody could look, kill or even greet any more.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from runtools.guest.problems import Problem

# Of `server.MAX_CONNECTIONS`: the rest is for acts, looks, and connections on which nothing is asked.
MAX_LASTING: Final = 216
LASTING: Final = frozenset(
    {
        *("process_wait", "process_follow", "watch"),
        *("read", "write", "download", "upload"),
        *("list", "copy", "move", "remove"),
    }
)  # and `exec`, whose stdin is to be read first


class Lasting:
    """How many there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Be one of them.

        Raises:
            Problem: there are as many as there may be; nothing was begun.
        """
        with self._lock:
            if self._count >= MAX_LASTING:
                raise Problem(
                    "unavailable",
                    f"{MAX_LASTING} commands, waits and transfers are under way inside already",
                    hint="ask again when some have ended, or end some; what is to run for long is "
                    "better started as a process, and looked at now and then",
                )
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
