"""What the agent answers when it will not or cannot do something: code, message, hint, details.

The codes are those of ``runtools.errors``, which this package must not import.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from typing import Any, Final

_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_BY_ERRNO: Final[Mapping[int, tuple[str, str]]] = {
    errno.ENOENT: ("file_missing", "no such file or directory"),
    errno.EEXIST: ("file_exists", "it exists"),
    errno.EACCES: ("file_forbidden", "permission denied"),
    errno.EPERM: ("file_forbidden", "not permitted"),
    errno.EROFS: ("file_forbidden", "the file system is read-only"),
    errno.ETXTBSY: ("file_forbidden", "the program is running"),
    errno.EISDIR: ("file_is_directory", "it is a directory"),
    errno.ENOTEMPTY: ("file_is_directory", "the directory is not empty"),
    errno.ENOTDIR: ("file_not_directory", "it is not a directory"),
    errno.ENOSPC: ("disk_full", "no space left on the disk"),
    errno.EDQUOT: ("disk_full", "the quota is used up"),
    errno.ENAMETOOLONG: ("invalid_path", "the name is too long"),
    errno.EFBIG: ("too_large", "larger than the file system allows"),
    errno.E2BIG: ("too_large", "arguments and environment together are too long"),
}


class Problem(Exception):
    """A refusal or failure with a name; travels to the caller as it is."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = dict(details or {})

    def to_json(self) -> bytes:
        """The payload of an answer or of an END frame."""
        body = {
            "code": self.code,
            "message": self.message[:2000],
            "hint": self.hint,
            "details": self.details,
        }
        return json.dumps({"error": body}).encode()

    def within(self, room: int) -> Problem:
        """The same as at most so many bytes of JSON: where it is longer, its long texts lose their middle.

        Of message and details three may be long.
        """
        if len(self.to_json()) <= room:
            return self
        details = {
            name: _shortened(value, room // 4) if isinstance(value, str) else value
            for name, value in self.details.items()
        }
        message = _shortened(self.message, room // 4)
        return Problem(self.code, message, hint=self.hint, details=details)


def _shortened(text: str, most: int) -> str:
    """Its beginning and its end, in at most so many bytes of JSON."""
    cut, kept = text, len(text) // 2
    while kept and len(json.dumps(cut)) > most:
        kept = kept * 3 // 4
        cut = f"{text[:kept]}…{text[len(text) - kept :]}"
    return cut


def of_errno(exc: OSError, path: str) -> Problem:
    """The problem that an error of the system stands for."""
    code, words = _BY_ERRNO.get(exc.errno or 0, ("file_error", exc.strerror or str(exc)))
    return Problem(code, f"{path}: {words}", details={"path": path})


def invalid(message: str, hint: str | None = None) -> Problem:
    """A request that cannot be meant."""
    return Problem("invalid_request", message, hint=hint)


def whole(request: Mapping[str, Any], name: str, default: int | None) -> int:
    """A field that holds a whole number, not below zero."""
    value = request.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise invalid(f"{name} must be a whole number, not {value!r}")
    return value


def op_id(request: Mapping[str, Any]) -> str:
    """The id that names an act for its repeats."""
    op = request.get("id")
    if not isinstance(op, str) or not _ID.fullmatch(op):
        raise invalid("a mutating request needs an id of 1 to 128 letters, digits or _.:-")
    return op
