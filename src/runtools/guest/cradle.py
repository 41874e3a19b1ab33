"""Where holders are born: a process forked from the agent at its start, before there are threads.

A holder forked from the busy agent would inherit its locks, its connections and all that it has in memory
just then, and keep it. The cradle is small and does one thing: it takes the open files that a holder
needs and forks. It ends with the agent; holders do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

_FILES: Final = 8
_SET_NAME: Final = 15  # PR_SET_NAME
_LAST: Final = 2**31 - 1

Hold = Callable[[list[int]], None]


class Cradle:
    """The agent's end of it. ``hold`` runs in each process that is forked; they end with it."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._lock = threading.Lock()
        self._pid = 0
        self._sock = self._start()

    def fork(self, fds: Sequence[int]) -> None:
        """Have a holder forked with these files. They stay open here, too.

        Raises:
            OSError: there is no room for another process.
        """
        with self._lock:
            try:
                socket.send_fds(self._sock, [b"h"], fds)
            except OSError:  # somebody killed it
                self._sock.close()
                os.waitpid(self._pid, 0)
                self._sock = self._start()
                socket.send_fds(self._sock, [b"h"], fds)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            _only(theirs, self._hold)
        theirs.close()
        return ours


def _only(sock: socket.socket, hold: Hold) -> NoReturn:
    """Be the cradle, with no other file than this."""
    try:
        os.dup2(sock.fileno(), 3)
        os.closerange(4, _LAST)
        set_name("runtools-cradle")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a holder ended
        _serve(socket.socket(fileno=3), hold)
    except BaseException:  # noqa: BLE001 - said, and the end: this process must not go on as the agent
        traceback.print_exc()
    finally:
        os._exit(0)


def _serve(sock: socket.socket, hold: Hold) -> None:
    while True:
        said, fds, _, _ = socket.recv_fds(sock, 16, _FILES)
        if not said:
            return
        for fd in fds:  # recv_fds() has flags, but does not pass them on
            os.set_inheritable(fd, False)
        pid = -1
        with contextlib.suppress(OSError):  # no room: the agent sees that nobody took its files
            pid = os.fork()
        if pid == 0:
            sock.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            set_name("runtools-holder")
            hold(fds)
            return
        for fd in fds:
            os.close(fd)


def set_name(name: str) -> None:
    """How this process is called in listings: a `pkill python3` inside must not mean it."""
    ctypes.CDLL(None).prctl(_SET_NAME, name.encode(), 0, 0, 0)
