"""Runs in a sandbox: holds bytes in memory and in files, changes some at each turn, says what it has.

``python3 keeper.py FOLDER`` makes ``FOLDER/order`` and ``FOLDER/answer`` (pipes), reads one JSON order a
line and answers each with one: what is in every block, worked out anew from the bytes themselves. It
does not know what should be there; who asks knows (`known`). Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
import zlib
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
_READ = 1 << 20


def content(name: str) -> bytes:
    """The block that a name stands for: the same everywhere."""
    return random.Random(name).randbytes(BLOCK)


def digest(data: bytes | bytearray | memoryview) -> int:
    """What tells a block from every other, cheap enough for an emulated processor."""
    return zlib.crc32(data)


class Keeper:
    """All that is held.

    Args:
        folder: where its files lie.
        memory: the name of each block of memory.
        files: the names of the blocks of each file.
    """

    def __init__(self, folder: Path, memory: list[str], files: list[list[str]]) -> None:
        self._folder = folder
        self._memory = bytearray(len(memory) * BLOCK)
        self.turns = 0
        self._change_memory(dict(enumerate(memory)))
        for number, names in enumerate(files):
            self._change_file(number, names)
        self._files = len(files)

    def turn(self, memory: dict[int, str], files: dict[int, list[str]]) -> dict[str, Any]:
        """Change these blocks and files, then say what all of them are."""
        self.turns += 1
        self._change_memory(memory)
        for number, names in files.items():
            self._change_file(number, names)
        _forget_files()
        return self.look()

    def look(self) -> dict[str, Any]:
        """What is in memory and, read from the disk, in the files."""
        view = memoryview(self._memory)
        return {
            "pid": os.getpid(),
            "turns": self.turns,
            "memory": [digest(view[at : at + BLOCK]) for at in range(0, len(view), BLOCK)],
            "files": [_digests(self._file(number)) for number in range(self._files)],
        }

    def _file(self, number: int) -> Path:
        return self._folder / f"file-{number}"

    def _change_memory(self, names: dict[int, str]) -> None:
        for block, name in names.items():
            self._memory[block * BLOCK : (block + 1) * BLOCK] = content(name)

    def _change_file(self, number: int, names: list[str]) -> None:
        with self._file(number).open("wb") as file:
            for name in names:
                file.write(content(name))
            file.flush()
            os.fsync(file.fileno())


def _digests(file: Path) -> list[int]:
    with file.open("rb") as read:
        return [digest(block) for block in iter(lambda: read.read(_READ), b"")]


def _forget_files() -> None:
    """So that the disk is read, and not what the kernel remembers of it; only root can."""
    with contextlib.suppress(PermissionError, OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


def _numbers(names: dict[str, Any]) -> dict[int, Any]:
    return {int(number): value for number, value in names.items()}


def main(folder: Path) -> None:
    """Take orders until one says that it is over."""
    order, answer = folder / "order", folder / "answer"
    for pipe in (order, answer):
        os.mkfifo(pipe)
    keeper: Keeper | None = None
    while True:
        asked = json.loads(order.read_text())
        began = time.monotonic()
        if keeper is None:
            keeper = Keeper(folder, asked["memory"], asked["files"])
            said = keeper.look()
        else:
            said = keeper.turn(_numbers(asked["memory"]), _numbers(asked["files"]))
        said["seconds"] = round(time.monotonic() - began, 2)
        answer.write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
