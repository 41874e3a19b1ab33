"""How many requests somebody may make in a minute, in this process, and have open at once.

A bucket holds one minute's worth and fills steadily; each request takes one token out. What was full
needs no memory, so only those who were here lately are remembered, and no more than a bound.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from runtools.errors import RateLimited
from runtools.platform.kit.clock import Clock

MOST = 10_000
_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a bucket stands after a request: as headers tell it."""

    limit: int
    remaining: int
    reset: int  # when it is full again, in seconds since 1970

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The documented headers."""
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.reset),
        ]


class Buckets:
    """One bucket for each name. ``per_minute`` 0: nobody is held up."""

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self._most = per_minute
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str) -> float:
        """For how many seconds there is no token (0: there is one)."""
        if not self._most:
            return 0.0
        level = self._level(name, self._clock.monotonic())
        return 0.0 if level >= 1 else (1 - level) * _MINUTE / self._most

    def take(self, name: str) -> tuple[Standing | None, float]:
        """Take a token; returns how it stands then, and for how many seconds there is none (0: taken)."""
        if not self._most:
            return None, 0.0
        wait = self.wait(name)
        now = self._clock.monotonic()
        level = self._level(name, now)
        if not wait:
            level -= 1
        self._levels[name] = (level, now)
        self._levels.move_to_end(name)
        if len(self._levels) > MOST:
            self._levels.popitem(last=False)
        full = (self._most - level) * _MINUTE / self._most
        reset = math.ceil(self._clock.now().timestamp() + full)
        return Standing(self._most, int(level), reset), wait

    def _level(self, name: str, now: float) -> float:
        level, at = self._levels.get(name, (float(self._most), now))
        return min(self._most, level + (now - at) * self._most / _MINUTE)


class Open:
    """How many requests each name has open. ``most`` 0: nobody is held up."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def enter(self, name: str) -> None:
        """One more begins.

        Raises:
            RateLimited: as many are open as may be.
        """
        if self._most and self._open[name] >= self._most:
            raise RateLimited(
                f"the org has {self._most} requests open, which is as many as it may have at once",
                hint="close streams and terminals that nobody looks at",
                details={"limit": "openRequests", "max": self._most},
            )
        self._open[name] += 1

    def leave(self, name: str) -> None:
        """One has ended."""
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]


def too_many(what: str, wait: float) -> RateLimited:
    """The refusal of who has none left."""
    seconds = max(1, math.ceil(wait))
    return RateLimited(
        f"too many {what} in a minute",
        hint=f"ask again in {seconds} s; the headers X-RateLimit-* tell how it stands",
        details={"retryAfterSeconds": seconds},
    )


@lru_cache(MOST)
def source(address: str) -> str:
    """Whom an address is counted to: an IPv6 network of 64 bits is one customer's."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address
