"""Connections without a login: bounded, and shared fairly among the addresses that they come from."""

from __future__ import annotations

from collections import Counter
from typing import Generic, TypeVar

from runtools.platform.kit.clock import Clock

WhoT = TypeVar("WhoT")

MOST = 256
PATIENCE_SECONDS = 10.0


class Strangers(Generic[WhoT]):
    """Who has not logged in yet.

    Where there are as many as may be, a new one comes in place of the one that has been here the longest of
    those from the address that has the most. Of one address the oldest makes room, too, but not for as
    long as it may well be about to log in.
    """

    def __init__(self, clock: Clock, *, most_of_source: int, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._most_of_source = most_of_source
        self._there: dict[WhoT, tuple[str, float]] = {}  # in the order in which they came
        self._sources: Counter[str] = Counter()

    def come(self, who: WhoT, source: str) -> list[WhoT] | None:
        """One more; returns who has to go for it, or None: there is no room for it."""
        gone: list[WhoT] = []
        now = self._clock.monotonic()
        if self._sources[source] >= self._most_of_source:
            oldest = self._oldest(source)
            if now - self._there[oldest][1] < PATIENCE_SECONDS:
                return None
            gone.append(oldest)
        elif len(self._there) >= self._most:
            gone.append(self._oldest(self._sources.most_common(1)[0][0]))
        for one in gone:
            self.leave(one)
        self._there[who] = (source, now)
        self._sources[source] += 1
        return gone

    def leave(self, who: WhoT) -> None:
        """It is gone, or no stranger any more."""
        source, _ = self._there.pop(who, ("", 0.0))
        if source:
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._there)

    def _oldest(self, source: str) -> WhoT:
        return next(who for who, (its, _) in self._there.items() if its == source)
