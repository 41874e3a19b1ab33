"""Global requests of a client, each answered when those before it are.

Those about ports and sockets to listen on are the sandbox's to answer, as they stand; all others, as those
that only ask whether anybody is there, are answered here: they are not to wake a sandbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncssh.constants import MSG_GLOBAL_REQUEST
from asyncssh.packet import Boolean, SSHPacket, String

MOST_WAITING, MOST_BYTES = 1024, 256 * 1024
_NO_MORE_SESSIONS = b"no-more-sessions@openssh.com"
_RELAYED = frozenset(
    (
        b"tcpip-forward",
        b"cancel-tcpip-forward",
        b"streamlocal-forward@openssh.com",
        b"cancel-streamlocal-forward@openssh.com",
    )
)


@dataclass(frozen=True, slots=True)
class _Request:
    """One. ``go_on`` answers it here; None: the sandbox is asked."""

    name: bytes
    about: bytes
    wants_answer: bool
    go_on: Callable[[], object] | None


class Requests:
    """Those of one client.

    Args:
        client: its connection.
        end: ends the connection, with a sentence.

    Attributes:
        bars_sessions: the client wants none beside those that it has, whoever asks on its connection.
    """

    def __init__(self, client: Any, end: Callable[[str], None]) -> None:
        self._client = client
        self._end = end
        self._inside: Any = None
        self._waiting: deque[_Request] = deque()
        self._bytes = 0
        self._is_asked = False
        self.bars_sessions = False

    def came(self, payload: bytes, go_on: Callable[[], object]) -> bool:
        """Take one; False: it can be answered here at once."""
        packet = SSHPacket(payload)
        name, wants_answer = packet.get_string(), packet.get_boolean()
        self.bars_sessions = self.bars_sessions or name == _NO_MORE_SESSIONS
        is_relayed = name in _RELAYED
        if not is_relayed and not self._waiting:
            return False
        about = packet.get_remaining_payload() if is_relayed else b""
        request = _Request(name, about, wants_answer, None if is_relayed else go_on)
        self._bytes += len(payload)
        if len(self._waiting) >= MOST_WAITING or self._bytes > MOST_BYTES:
            self._end("too many requests wait for their answers")
        else:
            self._waiting.append(request)
            self._next()
        return True

    def entered(self, inside: Any) -> None:
        """There is a connection into the sandbox now."""
        self._inside = inside
        self._next()

    def answered(self, kind: int, payload: bytes) -> bool:
        """Pass the sandbox's answer on; False: nobody has asked."""
        if not self._is_asked:
            return False
        self._is_asked = False
        if self._waiting.popleft().wants_answer:
            self._client.send_packet(kind, payload)
        self._next()
        return True

    def _next(self) -> None:
        while self._waiting and not self._is_asked:
            first = self._waiting[0]
            if first.go_on is not None:
                self._waiting.popleft()
                first.go_on()
            elif self._inside is None:
                return
            else:
                self._is_asked = True
                request = (String(first.name), Boolean(True), first.about)
                self._inside.send_packet(MSG_GLOBAL_REQUEST, *request)
        if not self._waiting:
            self._bytes = 0
