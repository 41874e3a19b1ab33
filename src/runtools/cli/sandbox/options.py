"""Values of options, read from the command line and from files, checked before anything is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from runtools.errors import InvalidRequest


def pairs(option: str, given: Iterable[str] | None) -> dict[str, str]:
    """``key=value`` options as a dictionary; a value may hold more equal signs, or nothing."""
    found = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest(f"{option} {text!r} is not of the form KEY=VALUE")
        found[key] = value
    return found


def public_key(path: Path) -> str:
    """The public key in a file.

    Raises:
        InvalidRequest: there is none, or it is a private key, which never leaves this machine.
    """
    try:
        text = path.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"{path}: {exc}") from None
    if "PRIVATE KEY" in text:
        raise InvalidRequest(f"{path} is a private key", hint=f"the public one is {path}.pub")
    return text


def password_from_stdin() -> str:
    """The first line of stdin."""
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise InvalidRequest("--password-stdin: there is no password on stdin")
    return password
