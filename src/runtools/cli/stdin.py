"""What a command is given on its stdin."""

from __future__ import annotations

import sys

import typer

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


def secret(what: str, hint: str) -> str:
    """A line that no process list should show: asked for at a terminal, else all of stdin.

    Args:
        what: it is called so.
        hint: what to do where there is none.

    Raises:
        InvalidRequest: there is none, or it is no text.
    """
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True, err=True)).strip()
    said = text().strip()
    if not said:
        raise InvalidRequest(f"stdin held no {what}", hint=hint)
    return said
