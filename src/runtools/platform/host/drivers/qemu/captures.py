"""A capture's folder: the memory and devices of one moment, and what they depend on.

    capture.json   the fingerprint; written last, so that a capture without it is none
    memory/        root's, 0700
      ram state

Everything needed to restore is in it. A VMM reaches the two files only because they are handed to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from runtools.errors import SnapshotUnfit
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.kit import files

_SHEET = "capture.json"


class Capture:
    """One capture."""

    def __init__(self, folder: Path) -> None:
        self._sheet = folder / _SHEET
        self._memory = folder / "memory"
        self.ram = self._memory / "ram"
        self.state = self._memory / "state"

    def begin(self) -> None:
        """Make room for a new one, where perhaps half of one is left from before."""
        self._sheet.unlink(missing_ok=True)
        if self._memory.exists():
            shutil.rmtree(self._memory)
        self._memory.mkdir(mode=0o700)

    def create(self, path: Path) -> int:
        """Open one of its files for writing. Any VMM may read it, if it is handed to it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.fchmod(fd, 0o644)
        return fd

    def complete(self, fingerprint: Mapping[str, str]) -> None:
        """Declare that all of it is there."""
        sheet = {"version": 1, "fingerprint": dict(fingerprint)}
        files.write_atomic(self._sheet, json.dumps(sheet).encode(), durable=False)

    def check(self, now: Mapping[str, str]) -> None:
        """Refuse, by name, what would not restore.

        Raises:
            SnapshotUnfit: it was made with something else.
            VmmFailed: it is not complete.
        """
        try:
            saved = json.loads(self._sheet.read_text())["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise VmmFailed(f"{self._sheet.parent.name} holds no complete capture") from exc
        check_same(f"the capture {self._sheet.parent.name}", saved, now)


def check_same(what: str, saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse a saved state whose fingerprint is another.

    Raises:
        SnapshotUnfit: with what differs.
    """
    differs = {
        key: {"saved": saved.get(key), "now": now.get(key)}
        for key in sorted({*saved, *now})
        if saved.get(key) != now.get(key)
    }
    if differs:
        raise SnapshotUnfit(
            f"{what} does not fit any more: {', '.join(differs)} changed",
            hint="it was saved with other software; go back to that, or start anew",
            details={"differs": differs},
        )
