"""Replacing an exact text in a file, as one act: nobody's change in between is lost.

The text must stand there as often as was said. What the file holds is read, the new content is made
beside it and put in its place, if it is still the file that was read; else all is done again. Edits of one
agent come one after the other. A program that writes into the file at the very moment of the exchange
cannot be kept out; one that replaced it, or wrote before, is seen.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping
from typing import Any, Final

from runtools.guest.content import Writer
from runtools.guest.paths import Root
from runtools.guest.problems import Problem, invalid, of_errno, whole
from runtools.guest.protocol import MAX_EDITED

_TRIES: Final = 16
_MAX_LINES: Final = 10
_one_at_a_time = threading.Lock()


class Edit:
    """One edit: checked, and then done."""

    def __init__(self, root: Root, request: Mapping[str, Any]) -> None:
        self._path = str(request.get("path"))
        self._old, self._new = _bytes(request, "old"), _bytes(request, "new")
        self._wanted = whole(request, "occurrences", 1)  # 0: any number, but at least one
        if not self._old:
            raise invalid("old must be a text: nothing stands everywhere")
        self._writer = Writer(root, request.get("path"), None, "replace")

    @property
    def temporary(self) -> str | None:
        """What an agent that dies leaves behind."""
        return self._writer.temporary

    def run(self) -> dict[str, Any]:
        """Do it; answers the file as it is then.

        Raises:
            Problem: nothing was changed; the code says why.
        """
        with _one_at_a_time:
            try:
                content, seen = self._edited()  # what cannot be is known before anything is made
                self._writer.open()
                for attempt in range(_TRIES):
                    if attempt:
                        content, seen = self._edited()
                    self._writer.put(content)
                    if self._is_still(seen):
                        return self._writer.finish()
                raise Problem(
                    "unavailable",
                    f"{self._path} is changed by others all the time",
                    hint="try again when it rests",
                )
            except OSError as exc:
                raise of_errno(exc, self._path) from exc
            finally:
                self._writer.undo()  # nothing, once it is finished

    def _read(self) -> tuple[bytes, os.stat_result]:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        with open(os.open(self._writer.place, flags), "rb") as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode):
                raise Problem("file_error", f"{self._path} is no regular file")
            data = file.read(MAX_EDITED + 1)
        self._check_size(len(data))
        return data, seen

    def _edited(self) -> tuple[bytes, os.stat_result]:
        """What the file is to hold, and which it was when it was read."""
        data, seen = self._read()
        count = data.count(self._old)
        if not count or self._wanted not in (0, count):
            raise Problem(
                "edit_unfit",
                f"{self._path} holds that text {count} times, not {self._wanted or 'once or more'}",
                hint="nothing was changed: read the file, and name a text that stands there so often",
                details={"count": count, "lines": self._lines(data)},
            )
        self._check_size(len(data) + count * (len(self._new) - len(self._old)))
        return data.replace(self._old, self._new), seen

    def _lines(self, data: bytes) -> str:
        """In which lines it begins, the first of them."""
        lines: list[str] = []
        at = data.find(self._old)
        while at >= 0 and len(lines) < _MAX_LINES:
            lines.append(str(data.count(b"\n", 0, at) + 1))
            at = data.find(self._old, at + len(self._old))
        return ", ".join(lines)

    def _check_size(self, size: int) -> None:
        if size > MAX_EDITED:
            raise Problem("too_large", f"{self._path}: at most {MAX_EDITED} bytes can be edited")

    def _is_still(self, seen: os.stat_result) -> bool:
        now = os.stat(self._writer.place)
        fields = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
        return all(getattr(now, each) == getattr(seen, each) for each in fields)


def _bytes(request: Mapping[str, Any], name: str) -> bytes:
    text = request.get(name)
    if not isinstance(text, str):
        raise invalid(f"{name} must be a text")
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise invalid(f"{name} is not valid Unicode") from exc
