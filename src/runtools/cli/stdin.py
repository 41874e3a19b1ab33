"""What a command is given on its stdin."""

from __future__ import annotations

import sys

from runtools.errors import InvalidRequest


def text() -> str:
    """All of stdin, as it is: no line ends otherwise than it was sent.

    Raises:
        InvalidRequest: it is no text.
    """
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            "stdin held no text in UTF-8", hint="send what is binary in base64"
        ) from None
