"""Those who speak to the holder of a durable process, and who of them wait for more of it."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from typing import Any, Final

from runtools.guest.packets import LIVE, MAX_PACKET, READY, SEEN, Live

_MAX_TALKS: Final = 256


class Talks:
    """All of one holder. ``act`` does what is asked for, and answers."""

    def __init__(
        self,
        listener: socket.socket,
        poll: select.poll,
        act: Callable[[socket.socket, dict[str, Any], bytes], None],
    ) -> None:
        self._listener = listener
        self._poll = poll
        self._act = act
        self._talks: dict[int, socket.socket] = {}
        self._waiting: dict[int, int] = {}  # who wants to hear of output beyond what
        self._state = LIVE.pack(*([0] * len(Live._fields)))
        self._end = 0

    def open(self) -> None:
        """Listen."""
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.POLLIN)

    def heard(self, fd: int) -> None:
        """The poll has told of something that may be one of theirs."""
        if fd == self._listener.fileno():
            self._accept()
        elif fd in self._talks:
            self._hear(self._talks[fd])

    def note(self, state: bytes) -> None:
        """How the process stands now."""
        self._state = state
        self._end = Live(*LIVE.unpack(state)).output

    def tell(self) -> None:
        """Wake those who wait for output that there is by now."""
        for fd, seen in list(self._waiting.items()):
            if self._end > seen:
                self._wake(fd, READY + self._state)

    def answer(self, sock: socket.socket, said: bytes) -> None:
        """Say something to one, who may be gone."""
        if sock.fileno() < 0:
            return
        try:
            sock.send(said)
        except OSError:  # it went, or asks without end and never listens
            self._drop(sock)

    def close(self) -> None:
        """The process has ended: all who wait are told, and nobody is listened to any more."""
        self._listener.close()
        for fd in list(self._waiting):
            self._wake(fd, READY)
        for sock in self._talks.values():
            sock.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it went before it was its turn
        if len(self._talks) >= _MAX_TALKS:
            sock.close()
            return
        sock.setblocking(False)
        self._talks[sock.fileno()] = sock
        self._poll.register(sock, select.POLLIN)

    def _hear(self, sock: socket.socket) -> None:
        try:
            said = sock.recv(MAX_PACKET + 1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._drop(sock)
        elif said == READY:
            self.answer(sock, READY)
        elif said[:1] == b"?":
            (seen,) = SEEN.unpack(said[1:])
            if self._end > seen:
                self.answer(sock, READY + self._state)
            else:
                self._waiting[sock.fileno()] = seen
        else:
            head, _, data = said.partition(b"\n")
            self._act(sock, json.loads(head), data)

    def _wake(self, fd: int, news: bytes) -> None:
        del self._waiting[fd]
        self.answer(self._talks[fd], news)

    def _drop(self, sock: socket.socket) -> None:
        fd = sock.fileno()
        self._waiting.pop(fd, None)
        self._poll.unregister(fd)
        del self._talks[fd]
        sock.close()
