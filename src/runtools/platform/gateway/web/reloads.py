"""How long a page of ours loads itself again: each time may wake a sandbox, and a tab may be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Look = tuple[str, int, str]  # a sandbox, its port, and the address that somebody looks from

MINUTES: Final = 5
_GAP_SECONDS: Final = 15.0  # after which it is somebody who looks for the first time
_KEPT_SECONDS: Final = 600.0  # longer than one look takes, a wake included
_MOST: Final = 10_000


class Reloads:
    """Who looks again and again at what does not answer.

    Args:
        time: seconds that only go on.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._looks: dict[Look, tuple[float, float]] = {}  # the first and the last time

    def may(self, look: Look, began: float) -> bool:
        """Note a look that is over; False: it has been long enough, and a person may do it by hand.

        Args:
            began: when it did; it may have taken a wake.
        """
        now = self._time()
        first, last = self._looks.get(look, (began, began))
        if began - last > _GAP_SECONDS:
            first = began
        if look not in self._looks and len(self._looks) >= _MOST:
            del self._looks[next(iter(self._looks))]
        self._looks[look] = (first, now)
        return now - first < MINUTES * 60

    def sweep(self) -> None:
        """Forget who looks no more."""
        gone = self._time() - _KEPT_SECONDS
        self._looks = {look: times for look, times in self._looks.items() if times[1] >= gone}
