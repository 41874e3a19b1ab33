"""Series of measurements, the bounds they should keep, and the table that sets each beside its floor."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass
class Series:
    """Values of one measurement in one unit."""

    values: list[float] = field(default_factory=list)

    def time(self, work: Callable[[], object]) -> None:
        """Add the milliseconds that the work takes."""
        began = time.perf_counter()
        work()
        self.values.append((time.perf_counter() - began) * 1000)

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """The value that 95 % stay below (the greatest of a short series)."""
        ranked = sorted(self.values)
        return ranked[min(len(ranked) - 1, int(len(ranked) * 0.95))]


@dataclass(frozen=True)
class Bound:
    """What a row should keep: how it reads, and whether a row (medians) keeps it."""

    text: str
    kept: Callable[[Row], bool]


@dataclass(frozen=True)
class Row:
    """One line: what was measured, its floor, what is wanted, and what DESIGN.md §4 says of the floor."""

    name: str
    unit: str
    ours: Series
    floor: Series | None
    wanted: tuple[Bound, ...]
    design: str

    @property
    def ratio(self) -> float | None:
        """Ours over the floor, medians."""
        return self.ours.p50 / self.floor.p50 if self.floor and self.floor.p50 else None

    @property
    def passed(self) -> bool | None:
        """Whether every bound is kept; None where none is set."""
        return all(bound.kept(self) for bound in self.wanted) if self.wanted else None

    def to_json(self) -> dict[str, Any]:
        """The row for `latest.json`."""
        floor = self.floor
        return {
            "name": self.name,
            "unit": self.unit,
            "floor": {"p50": floor.p50, "p95": floor.p95} if floor else None,
            "ours": {"p50": self.ours.p50, "p95": self.ours.p95},
            "ratio": self.ratio,
            "wanted": [bound.text for bound in self.wanted],
            "passed": self.passed,
            "design": self.design or None,
        }


def row(
    name: str,
    ours: Series,
    floor: Series | None = None,
    *,
    unit: str = "ms",
    wanted: Iterable[Bound] = (),
    design: str = "",
) -> Row:
    """A line from two series."""
    return Row(name, unit, ours, floor, tuple(wanted), design)


def at_most(limit: float) -> Bound:
    """Ours, in the row's unit."""
    return Bound(f"≤ {limit:g}", lambda row: row.ours.p50 <= limit)


def nearly_always_at_most(limit: float) -> Bound:
    """Ours, in the row's unit: what holds for every one, seen at the 95th percentile."""
    return Bound(f"p95 ≤ {limit:g}", lambda row: row.ours.p95 <= limit)


def at_least(limit: float) -> Bound:
    """Ours, in the row's unit."""
    return Bound(f"≥ {limit:g}", lambda row: row.ours.p50 >= limit)


def at_most_floor_times(factor: float) -> Bound:
    """Ours beside the floor's."""
    return Bound(f"≤ {factor:g} of the floor", lambda row: _ratio(row) <= factor)


def at_least_floor_times(factor: float) -> Bound:
    """Ours beside the floor's."""
    return Bound(f"≥ {factor:g} of the floor", lambda row: _ratio(row) >= factor)


def at_most_floor_plus(more: float) -> Bound:
    """Ours beside the floor's, in the row's unit."""
    return Bound(f"≤ floor + {more:g}", lambda row: row.ours.p50 <= _floor(row).p50 + more)


def _ratio(row: Row) -> float:
    return row.ours.p50 / _floor(row).p50


def _floor(row: Row) -> Series:
    if row.floor is None:
        raise ValueError(f"{row.name}: bounded by a floor that was not measured")
    return row.floor


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="RunTools beside the floor (p50 / p95)")
    for head in ("measured", "DESIGN §4", "floor", "ours", "unit", "ratio", "wanted", ""):
        table.add_column(head, justify="right" if head in {"floor", "ours", "ratio"} else "left")
    marks = {None: "", True: "[green]pass[/]", False: "[bold red]MISS[/]"}
    for one in rows:
        table.add_row(
            one.name,
            one.design,
            _pair(one.floor) if one.floor else "",
            _pair(one.ours),
            one.unit,
            f"{one.ratio:.2f}" if one.ratio else "",
            ", ".join(bound.text for bound in one.wanted),
            marks[one.passed],
        )
    Console(width=150).print(table)


def _pair(series: Series) -> str:
    digits = 1 if series.p50 >= 10 else 2
    return f"{series.p50:.{digits}f} / {series.p95:.{digits}f}"
