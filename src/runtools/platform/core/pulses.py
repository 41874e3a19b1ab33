"""WebSocket pings and pongs on their way: they keep a connection, and nothing awake."""

from __future__ import annotations

from typing import Final

SWITCHED: Final = b"HTTP/1.1 101 "
_PING, _PONG = 0x89, 0x8A  # whole, as all of them are
_MASKED, _LENGTH = 0x80, 0x7F
_LONGEST: Final = 125


def is_pulse(data: bytes) -> bool:
    """Whether these bytes are whole pings and pongs, and nothing else."""
    at, end = 0, len(data)
    while at + 1 < end and data[at] in (_PING, _PONG):
        length = data[at + 1] & _LENGTH
        if length > _LONGEST:
            return False
        at += 2 + length + (4 if data[at + 1] & _MASKED else 0)
        if at == end:
            return True
    return False
