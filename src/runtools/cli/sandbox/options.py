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
        text = path.expanduser().read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"{path}: {exc}") from None
    return no_private_key(str(path), text, f"the public one is usually in {path}.pub")


def no_private_key(source: str, text: str, hint: str) -> str:
    """The text, unless it is a private key, which never leaves this machine."""
    if "PRIVATE KEY" in text or "PuTTY-User-Key-File" in text:
        raise InvalidRequest(
            f"{source} is a private key; it was not sent",
            hint=hint,
        )
    return text.strip()


def key_or_label(text: str) -> str:
    """The public key in the file of that name; without such a file, a registered key's label or id."""
    path = Path(text)
    is_file = "/" in text or path.suffix == ".pub" or path.expanduser().is_file()
    return public_key(path) if is_file else text


def password_from_stdin() -> str:
    """The first line of stdin."""
    password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise InvalidRequest("--password-stdin: there is no password on stdin")
    return password
