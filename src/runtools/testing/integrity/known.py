"""What a keeper must hold, known without asking it: names of blocks, and what those names stand for."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from runtools.testing.integrity import keeper

_MEMORY_CHANGED = 16
_FILES_CHANGED = 2


class Mismatch(AssertionError):
    """Something is not what it was; ``facts`` say what, where and how."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(f"{message}: {facts}")
        self.message = message
        self.facts = facts


@lru_cache(maxsize=4096)
def _digest(name: str) -> int:
    return keeper.digest(keeper.content(name))


@dataclass(frozen=True)
class Known:
    """What one keeper holds.

    Attributes:
        memory: the name of each block.
        files: the names of the blocks of each file.
        turns: how often it has changed something.
        pid: who it is, as its first answer said.
    """

    memory: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    turns: int = 0
    pid: int | None = field(default=None)

    @classmethod
    def fresh(cls, salt: str, *, memory_mb: int, files: int, file_mb: int) -> Known:
        """What a new one is told to hold; no two salts give the same bytes."""
        memory = tuple(f"{salt}/memory/{block}" for block in range(memory_mb))
        each = tuple(
            tuple(f"{salt}/file/{number}/{block}" for block in range(file_mb))
            for number in range(files)
        )
        return cls(memory, each)

    def order(self) -> dict[str, Any]:
        """What a new keeper is to be told."""
        return {"memory": self.memory, "files": self.files}

    def turn(self, salt: str) -> tuple[Known, dict[str, Any]]:
        """What is held after the next turn, and the order that makes it so."""
        chance = random.Random(salt)
        blocks = chance.sample(range(len(self.memory)), min(_MEMORY_CHANGED, len(self.memory)))
        numbers = chance.sample(range(len(self.files)), min(_FILES_CHANGED, len(self.files)))
        memory = {block: f"{salt}/memory/{block}" for block in blocks}
        files = {
            number: tuple(f"{salt}/file/{number}/{at}" for at in range(len(self.files[number])))
            for number in numbers
        }
        after = Known(
            tuple(memory.get(block, name) for block, name in enumerate(self.memory)),
            tuple(files.get(number, names) for number, names in enumerate(self.files)),
            self.turns + 1,
            self.pid,
        )
        return after, {"memory": memory, "files": files}

    def met(self, said: dict[str, Any]) -> Known:
        """Compare with what a keeper says; returns this, with its pid.

        Raises:
            Mismatch: a byte, a turn or the process itself is another.
        """
        wrong: dict[str, Any] = {}
        if self.pid not in (None, said["pid"]):
            wrong["pid"] = {"was": self.pid, "is": said["pid"]}
        if said["turns"] != self.turns:
            wrong["turns"] = {"should_be": self.turns, "is": said["turns"]}
        if bad := _differing(self.memory, said["memory"]):
            wrong["memory_blocks"] = bad
        if len(said["files"]) != len(self.files):
            wrong["files"] = {"should_be": len(self.files), "is": len(said["files"])}
        for number, (names, found) in enumerate(zip(self.files, said["files"], strict=False)):
            if bad := _differing(names, found):
                wrong[f"file-{number}"] = bad
        if wrong:
            raise Mismatch("what the guest holds is not what it was told to", **wrong)
        return Known(self.memory, self.files, self.turns, said["pid"])


def _differing(names: tuple[str, ...], found: list[int]) -> list[dict[str, Any]]:
    """Which blocks are not what their names say; one that is missing or too many is one, too."""
    bad = []
    for block in range(max(len(names), len(found))):
        name = names[block] if block < len(names) else None
        wanted = _digest(name) if name is not None else None
        is_there = found[block] if block < len(found) else None
        if wanted != is_there:
            bad.append({"block": block, "name": name, "should_be": wanted, "is": is_there})
    return bad
