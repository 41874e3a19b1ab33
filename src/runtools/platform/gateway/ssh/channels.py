"""The bridge: a channel of the client's connection and one of the sandbox's, joined packet by packet.

Nothing of what passes is understood but where a channel begins and ends: requests, data and windows go
through as they are, so whatever client and server can do works, and each waits for the other's window. How
much lies here in between is bounded by the two transports: each is read only while the other takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncssh
from asyncssh.constants import (
    EXTENDED_DATA_STDERR,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    OPEN_CONNECT_FAILED,
)
from asyncssh.packet import Boolean, SSHPacket, String, UInt32

SESSION = b"session"
FAILED = 255  # what OpenSSH exits with when it is not the command that failed


class End:
    """One end of a bridged channel, in the place where its connection expects a channel of its own."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.number: int = connection.add_channel(self)
        self.theirs: int | None = None  # None: not open, or closed by us
        self.other: End | None = None
        self.is_closed = False  # by us: the other side's answer is its end
        self._there = True

    # --- what the connection calls ---

    def log_received_packet(self, *_about: object) -> None:
        """Nothing is logged: there are thousands in a second."""

    def process_packet(self, kind: int, _number: int, packet: SSHPacket) -> bool:
        """Pass on what came."""
        other = self.other
        if other is None or other.theirs is None:
            if kind == MSG_CHANNEL_CLOSE and self.is_closed:
                self.leave()  # not before: it would be forgotten while the other end waits
            return True
        body = packet.get_remaining_payload()
        self.came(kind, body)
        other.send(kind, body)
        if kind == MSG_CHANNEL_CLOSE:
            other.theirs, other.is_closed = None, True
            if self.theirs is None:
                self.leave()
                other.leave()
        return True

    def process_connection_close(self, _failure: Exception | None) -> None:
        """The connection is gone, and this with it."""
        self.theirs = None
        self.leave()

    def close(self) -> None:
        """Close it from our side; it leaves when the other side has closed it too."""
        if self.theirs is not None:
            self.send(MSG_CHANNEL_CLOSE)
            self.theirs, self.is_closed = None, True

    def set_inbound_peer_names(self, *_names: object) -> None:
        """Who connects is the sandbox's business."""

    # --- what the bridge does ---

    def came(self, kind: int, body: bytes) -> None:
        """Look at what came in here."""

    def send(self, kind: int, *body: bytes) -> None:
        """Send to the other side of this connection."""
        assert self.theirs is not None  # noqa: S101 - asked before
        self.connection.send_packet(kind, UInt32(self.theirs), *body)

    def leave(self) -> None:
        """Give the number back."""
        if self._there:
            self._there = False
            self.connection.remove_channel(self.number)
            self.left()

    def left(self) -> None:
        """It is over."""


class Giver(End):
    """The end where the channel is asked for on, in the words of who wants it."""

    other: Asker
    _asked = False

    def open(self, asker: Asker) -> None:
        """Ask for what the asker has asked for, with its own window."""
        self.other = asker
        self._asked = True
        self.connection.send_packet(
            MSG_CHANNEL_OPEN,
            String(asker.kind),
            UInt32(self.number),
            UInt32(asker.window),
            UInt32(asker.packet),
            asker.about,
        )

    def process_open_confirmation(
        self, theirs: int, window: int, packet: int, _rest: SSHPacket
    ) -> None:
        """It is open: tell who asked, with the window that is given."""
        if not self._asked:
            return  # it was answered already
        self._asked = False
        self.theirs = theirs
        if self.other.is_over:
            self.close()
        else:
            self.other.opened(self, window, packet)

    def process_open_failure(self, code: int, reason: str, _language: str) -> None:
        """It was refused: tell who asked, in the same words."""
        if self._asked:
            self._asked = False
            self.leave()
            self.other.refuse(reason, code)

    def came(self, kind: int, body: bytes) -> None:
        """Count what the asker is sent."""
        if kind == MSG_CHANNEL_DATA:
            self.other.window -= len(body) - 4
        elif kind == MSG_CHANNEL_EXTENDED_DATA:
            self.other.window -= len(body) - 8


class Asker(End):
    """The end of who wants the channel: of the client, or of the sandbox where a port of it leads back.

    Args:
        kind: the channel's type.
        about: what its opening says beside that.
        begin: is called with it when somebody waits for it to be opened.
        end: is called with it when it is over.
    """

    def __init__(
        self,
        connection: Any,
        kind: bytes,
        about: bytes,
        begin: Callable[[Asker], None],
        end: Callable[[Asker], None],
    ) -> None:
        super().__init__(connection)
        self.kind = kind
        self.about = about
        self.window = 0
        self.packet = 0
        self._begin = begin
        self._end = end
        self._asked_as = 0

    @property
    def is_over(self) -> bool:
        """Whether who asked has gone, or was refused."""
        return not self._there

    def process_open(self, theirs: int, window: int, packet: int, _session: object) -> None:
        """Somebody asks for it."""
        self._asked_as, self.window, self.packet = theirs, window, packet
        self._begin(self)

    def opened(self, giver: Giver, window: int, packet: int) -> None:
        """It was given."""
        self.other, self.theirs = giver, self._asked_as
        self.connection.send_channel_open_confirmation(self.theirs, self.number, window, packet)

    def refuse(self, reason: str, code: int = OPEN_CONNECT_FAILED) -> None:
        """It will not be opened."""
        if self._there:
            self.connection.send_channel_open_failure(self._asked_as, code, reason, "en")
            self.leave()

    def came(self, kind: int, body: bytes) -> None:
        """Count what it may be sent."""
        if kind == MSG_CHANNEL_WINDOW_ADJUST:
            self.window += int.from_bytes(body[:4], "big")

    def say_and_close(self, sentence: str) -> bool:
        """End it with a sentence on stderr; False: it is no open session, or has no room for that."""
        text = f"{sentence}\r\n".encode()
        if self.theirs is None or self.kind != SESSION or self.window < len(text):
            self.close()
            return False
        self.send(MSG_CHANNEL_EXTENDED_DATA, UInt32(EXTENDED_DATA_STDERR), String(text))
        status = (String(b"exit-status"), Boolean(False), UInt32(FAILED))
        self.send(MSG_CHANNEL_REQUEST, *status)
        self.close()
        return True

    def left(self) -> None:
        """Tell who counts."""
        self._end(self)


def refused(reason: str, code: int = OPEN_CONNECT_FAILED) -> asyncssh.ChannelOpenError:
    """The refusal of a channel before it is one."""
    return asyncssh.ChannelOpenError(code, reason)
