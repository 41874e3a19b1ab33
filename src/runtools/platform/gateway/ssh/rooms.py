"""How many may be in at once: counted by name, and forgotten with the last one."""

from __future__ import annotations

from collections import Counter


class Rooms:
    """Places by name: a source's address, or a sandbox."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> bool:
        """Take a place; False: there is none left."""
        if self._taken[name] >= self._most:
            return False
        self._taken[name] += 1
        return True

    def leave(self, name: str) -> None:
        """Give a place back."""
        self._taken[name] -= 1
        if self._taken[name] <= 0:
            del self._taken[name]

    def __len__(self) -> int:
        """How many names have a place."""
        return len(self._taken)
