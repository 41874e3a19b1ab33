"""Adding up what sandboxes used, to the millisecond and the MB, so that parts always make the whole. Pure.

Every figure is a whole number of milliseconds, or of MB times milliseconds, cut out of the same stretches
of time. So a period is exactly the sum of the periods that it is cut into, wherever the cuts are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runtools.platform.kit.db import micros, moment

_DAY = timedelta(days=1)
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Move:
    """What a sandbox came to be, and when its host's clock said so. In the order of the host's reports."""

    at: int
    state: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """From when to when (milliseconds since 1970) there was so much of something."""

    since: int
    until: int
    amount: int = 1


@dataclass(frozen=True, slots=True)
class Day:
    """What was used on a day (UTC) that is long gone, added up; ``since`` is its midnight.

    Where within the day it was is forgotten, so a part of the day has a share by its length. Shares are
    differences of one rising function of time: those of any parts of the day make the whole again.
    """

    since: int
    running_ms: int
    stored_mb_ms: int

    @property
    def until(self) -> int:
        """The next midnight."""
        return self.since + DAY_MS

    def share(self, since: int, until: int) -> tuple[int, int]:
        """How much of both counts to a period."""
        start = min(max(since - self.since, 0), DAY_MS)
        end = min(max(until - self.since, start), DAY_MS)
        ran, lay = self.running_ms, self.stored_mb_ms
        return (
            ran * end // DAY_MS - ran * start // DAY_MS,
            lay * end // DAY_MS - lay * start // DAY_MS,
        )


def added_up(running: Iterable[Stretch], stored: Iterable[Stretch], before: int) -> Iterator[Day]:
    """What lies before a midnight, by day."""
    found: dict[int, list[int]] = {}
    for place, stretches in enumerate((running, stored)):
        for one in stretches:
            at, end = one.since, min(one.until, before)
            while at < end:
                midnight = at // DAY_MS * DAY_MS
                stop = min(end, midnight + DAY_MS)
                found.setdefault(midnight, [0, 0])[place] += (stop - at) * one.amount
                at = stop
    for since in sorted(found):
        yield Day(since, *found[since])


def millis(at: datetime) -> int:
    """A point in time as whole milliseconds since 1970."""
    return micros(at) // 1000


def running(moves: Sequence[Move], now: int) -> Iterator[Stretch]:
    """When a sandbox ran; until now, if it does.

    The order is that of the reports, whatever the clock said: one that was put back makes a move no earlier
    than the one before it. After its end nothing counts any more.
    """
    at, state = 0, ""
    for move in moves:
        if state == "stopped":
            return
        later = max(at, move.at)
        if state == "running" and later > at:
            yield Stretch(at, later)
        at, state = later, move.state
    if state == "running" and now > at:
        yield Stretch(at, now)


def within(stretches: Iterable[Stretch], since: int, until: int) -> int:
    """How much of it lies in a period."""
    return shares(stretches, [(since, until)]).get(0, 0)


def shares(stretches: Iterable[Stretch], cuts: Sequence[tuple[int, int]]) -> dict[int, int]:
    """How much of it lies in each of the periods, by their numbers; those with nothing are left out.

    The periods follow each other in time. Both are gone through together, once.
    """
    found: dict[int, int] = {}
    first = 0
    for one in sorted(stretches, key=lambda one: one.since):
        while first < len(cuts) and cuts[first][1] <= one.since:
            first += 1
        n = first
        while n < len(cuts) and cuts[n][0] < one.until:
            since, until = cuts[n]
            amount = (min(one.until, until) - max(one.since, since)) * one.amount
            if amount > 0:
                found[n] = found.get(n, 0) + amount
            n += 1
    return found


def days(since: int, until: int) -> Iterator[tuple[str, int, int]]:
    """The days (UTC) of a period, the first and the last cut to it."""
    at = since
    while at < until:
        day = moment(at * 1000).astimezone(UTC).date()
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + _DAY
        end = min(until, millis(midnight))
        yield day.isoformat(), at, end
        at = end
