"""Where a local machine's state lies below its folder, and what can be read from there alone.

tree/          what the sandbox sees as /; there while it lives or is suspended
lock           locked as long as the holder lives
holder.json    the holder and the sandbox's first process, each as (pid, start time)
still.json     there while the sandbox stands still, and why
exit.json      how it ended
owner          the user that a real machine would run as
console.log    what it said
holder.log     what the holder said
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtools.platform.core.ports.driver import Exit
from runtools.platform.kit import files
from runtools.testing.local_holder import started_at

Phase = Literal["freezing", "suspended", "thawing"]
_TAIL_LINES = 40
_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Stillness:
    """Why a sandbox stands still, and which of its processes had stopped by themselves before."""

    phase: Phase
    already: frozenset[int]


@dataclass(frozen=True, slots=True)
class Place:
    """The ``vmm`` folder of one local machine."""

    folder: Path

    @property
    def tree(self) -> Path:
        """The sandbox's file tree."""
        return self.folder / "tree"

    @property
    def console(self) -> Path:
        """What the sandbox said."""
        return self.folder / "console.log"

    @property
    def messages(self) -> Path:
        """What the holder said."""
        return self.folder / "holder.log"

    # --- who lives ---

    def note_owner(self, uid: int) -> None:
        """Write down as whom a real machine would run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_atomic(self.folder / "owner", str(uid).encode(), durable=False)

    def owner(self) -> int | None:
        """As whom a real machine would run; None where none was started."""
        try:
            return int((self.folder / "owner").read_text())
        except FileNotFoundError:
            return None

    def take_lock(self) -> int | None:
        """The lock's descriptor, now locked by us; None when a holder has it."""
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def holder(self) -> int | None:
        """The pid of the holder, if it lives."""
        return self._living("holder")

    def first(self) -> int | None:
        """The pid of the sandbox's first process, if it lives; all others end with it."""
        return self._living("first")

    def is_known(self) -> bool:
        """Whether a holder has said who it is since the machine was last started."""
        return (self.folder / "holder.json").exists()

    def _living(self, who: str) -> int | None:
        said = self._read("holder.json")
        if said is None or said[f"{who}_start"] is None:
            return None
        pid = int(said[who])
        return pid if started_at(pid) == said[f"{who}_start"] else None

    # --- what is so ---

    def stillness(self) -> Stillness | None:
        """Why the sandbox stands still; None when nobody stopped it."""
        said = self._read("still.json")
        return None if said is None else Stillness(said["phase"], frozenset(said["already"]))

    def is_suspended(self) -> bool:
        """Whether it stands still because it was suspended, and not in the middle of an act."""
        still = self.stillness()
        return still is not None and still.phase == "suspended"

    def set_still(self, phase: Phase, already: Collection[int]) -> None:
        """Write down why the sandbox stands still."""
        text = json.dumps({"phase": phase, "already": sorted(already)})
        files.write_atomic(self.folder / "still.json", text.encode(), durable=False)

    def clear_still(self) -> None:
        """It goes on."""
        (self.folder / "still.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget the previous life."""
        for name in ("holder.json", "still.json", "exit.json"):
            (self.folder / name).unlink(missing_ok=True)

    def exit(self) -> Exit:
        """How the last life ended, as far as anybody saw."""
        said = self._read("exit.json") or {"code": None, "signal": None}
        return Exit(said["code"], said["signal"], tail(self.console), tail(self.messages))

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            value: dict[str, Any] = json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            return None
        return value


def tail(path: Path, lines: int = _TAIL_LINES) -> tuple[str, ...]:
    """The last lines of a file, bounded in bytes too."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return tuple(
                file.read().decode(errors="replace").splitlines()[-lines:] if lines else []
            )
    except FileNotFoundError:
        return ()
