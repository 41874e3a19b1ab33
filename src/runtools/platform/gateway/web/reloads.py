"""How long a page of ours loads itself again: each time may wake a sandbox, and a tab may be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Look = tuple[str, int, str]  # a sandbox, its port, and the address that somebody looks from

MINUTES: Final = 5
_GAP_SECONDS: Final = 15.0  # after which it is somebody who looks for the first time


class Reloads:
    """Who looks again and again at what does not answer.

    Args:
        time: seconds that only go on.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._looks: dict[Look, tuple[float, float]] = {}  # the first and the last time

    def may(self, look: Look) -> bool:
        """Note that somebody looks; False: it has been long enough, and a person may do it by hand."""
        now = self._time()
        first, last = self._looks.get(look, (now, now))
        if now - last > _GAP_SECONDS:
            first = now
        self._looks[look] = (first, now)
        return now - first < MINUTES * 60

    def sweep(self) -> None:
        """Forget who looks no more."""
        gone = self._time() - _GAP_SECONDS
        self._looks = {look: times for look, times in self._looks.items() if times[1] >= gone}
