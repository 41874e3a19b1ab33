"""Names of files as callers write them, and where they lie.

A real machine has ``/`` as its root. A stand-in (tests, a sandbox of plain processes) keeps all that
belongs to the machine below a folder of its own.
"""

from __future__ import annotations

import os
from typing import Final

from runtools.guest.problems import Problem

MAX_PATH: Final = 4096


class Root:
    """Where the machine's files begin."""

    def __init__(self, folder: str = "/") -> None:
        self.real = folder == "/"
        self._prefix = "" if self.real else folder.rstrip("/")

    def path(self, name: object) -> str:
        """The place of a file that a caller names.

        Raises:
            Problem: ``invalid_path``: not absolute, ``..`` or NUL in it, or too long.
        """
        if not isinstance(name, str) or not name.startswith("/"):
            raise _invalid(name, "it must be absolute")
        if "\0" in name:
            raise _invalid(name, "it holds a NUL")
        try:
            size = len(name.encode())
        except UnicodeEncodeError as exc:
            raise _invalid(name, "it is not valid Unicode") from exc
        if size > MAX_PATH:
            raise _invalid(name[:80], f"it is longer than {MAX_PATH} bytes")
        if ".." in name and ".." in name.split("/"):
            raise _invalid(name, "it holds '..'")
        if self._prefix:
            return self._prefix + name
        return name

    def own(self, name: str) -> str:
        """The place of a file that the agent itself means; no checks."""
        return self._prefix + name

    def shown(self, place: str) -> str:
        """How callers know a place; bytes that are no UTF-8 are shown as ``\\xNN``."""
        name = place.removeprefix(self._prefix) or "/"
        if name.isascii():
            return name
        return os.fsencode(name).decode("utf-8", "backslashreplace")


def _invalid(name: object, why: str) -> Problem:
    return Problem(
        "invalid_path", f"{name!r}: {why}", hint="give an absolute path without '..' segments"
    )
