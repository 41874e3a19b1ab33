"""Whose build is next: one at a time, and the orgs that have builds waiting take turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count


@dataclass(eq=False, slots=True)
class Turn:
    """What a build waits for: ``come`` is done when its turn has come."""

    org_id: str
    come: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Turns:
    """Of the orgs that wait the one is next whose last turn was longest ago; of its builds, the first."""

    def __init__(self) -> None:
        self._has: Turn | None = None
        self._waiting: list[Turn] = []
        self._last: dict[str, int] = {}  # of each org, the number of its last turn
        self._numbers = count(1)

    def ask(self, org_id: str) -> tuple[Turn, int]:
        """A turn that has come, or will; and how many are before it as it stands."""
        turn = Turn(org_id)
        self._waiting.append(turn)
        if self._has is None:
            self._next()
            return turn, 0
        return turn, 1 + self._before(turn)

    def end(self, turn: Turn) -> None:
        """It is over, or waited for no more."""
        if turn is self._has:
            self._has = None
            self._next()
        else:
            self._waiting.remove(turn)

    def _next(self) -> None:
        if waiting := self._want():
            self._has = _first(waiting, self._last)
            self._waiting.remove(self._has)
            self._last[self._has.org_id] = next(self._numbers)
            self._has.come.set_result(None)

    def _want(self) -> list[Turn]:
        """Those that wait, but for what is cancelled at this moment."""
        return [one for one in self._waiting if not one.come.done()]

    def _before(self, turn: Turn) -> int:
        """How many of those that wait come before one, if nobody else comes."""
        waiting, last = self._want(), dict(self._last)
        before = 0
        while (one := _first(waiting, last)) is not turn:
            waiting.remove(one)
            before += 1
            last[one.org_id] = max(last.values()) + 1
        return before


def _first(waiting: list[Turn], last: dict[str, int]) -> Turn:
    return min(waiting, key=lambda one: last.get(one.org_id, 0))
