"""Series of measurements, and the table that sets each beside its floor."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
class Row:
    """One line: what was measured, its floor, and what the issue of the day asks for."""

    name: str
    unit: str
    ours_p50: float
    ours_p95: float
    floor_p50: float | None = None
    floor_p95: float | None = None
    wanted: str = ""
    design: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the floor, medians."""
        return self.ours_p50 / self.floor_p50 if self.floor_p50 else None


def row(
    name: str, ours: Series, floor: Series | None = None, *, unit="ms", wanted="", design=""
) -> Row:
    """A line from two series."""
    return Row(
        name,
        unit,
        ours.p50,
        ours.p95,
        floor.p50 if floor else None,
        floor.p95 if floor else None,
        wanted,
        design,
    )


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="RunTools beside the floor (p50 / p95)")
    for head in ("measured", "floor", "ours", "ratio", "wanted", "DESIGN §4"):
        table.add_column(head, justify="left" if head in {"measured", "wanted"} else "right")
    for one in rows:
        floor = f"{one.floor_p50:.1f} / {one.floor_p95:.1f}" if one.floor_p50 else "-"
        ours = f"{one.ours_p50:.1f} / {one.ours_p95:.1f} {one.unit}"
        ratio = f"{one.ratio:.2f}" if one.ratio else "-"
        table.add_row(one.name, floor, ours, ratio, one.wanted, one.design)
    Console(width=132).print(table)


def save(rows: list[Row], path: Path) -> None:
    """Write the table as JSON, with what kind of machine it was measured on."""
    body = {
        "machine": {"cpus": _cpus(), "python": platform.python_version()},
        "rows": [{**asdict(one), "ratio": one.ratio} for one in rows],
    }
    path.write_text(json.dumps(body, indent=2) + "\n")


def _cpus() -> int:
    return len(
        [1 for line in Path("/proc/cpuinfo").read_text().splitlines() if "processor" in line]
    )
