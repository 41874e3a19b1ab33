"""An hour of figures as a line of bars, one for every two minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtools.sdk.shapes import StatsHistory, StatsPoint

NOTHING = "·"
BARS = 30
_EACH_SECONDS = 120
_HEIGHTS = "▁▂▃▄▅▆▇█"


def means(hour: StatsHistory, get: Callable[[StatsPoint], float | None]) -> list[float | None]:
    """The mean of every two minutes, the oldest first; None where there is no figure."""
    parts: list[list[float]] = [[] for _ in range(BARS)]
    for point in hour.points:
        value = get(point)
        back = int((hour.until - point.at).total_seconds() // _EACH_SECONDS)
        if value is not None and 0 <= back < BARS:
            parts[BARS - 1 - back].append(value)
    return [sum(values) / len(values) if values else None for values in parts]


def line(values: Sequence[float | None], top: float) -> str:
    """One bar for each, as high as its share of ``top``."""
    return "".join(NOTHING if value is None else _bar(value, top) for value in values)


def _bar(value: float, top: float) -> str:
    share = value / top if top > 0 else 0.0
    return _HEIGHTS[min(len(_HEIGHTS) - 1, max(0, round(share * (len(_HEIGHTS) - 1))))]
