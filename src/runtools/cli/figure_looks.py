"""How figures of machines and disks look: as bars."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text

from runtools.cli import sparks, tables, words
from runtools.sdk import shapes

_BAR = 20


def stats(measured: shapes.Stats) -> RenderableType:
    """What a machine says of itself."""
    ports = ", ".join(str(port) for port in measured.listening_ports)
    return tables.facts(
        ("cpu", _bar(measured.cpu_percent, 100, f"{measured.cpu_percent:.1f} %")),
        ("memory", _bytes_bar(measured.memory_used_bytes, measured.memory_total_bytes)),
        ("disk", _bytes_bar(measured.disk_used_bytes, measured.disk_total_bytes)),
        ("up", words.span(measured.uptime_seconds)),
        ("processes", str(measured.processes)),
        ("listening", ports or "nothing"),
        ("measured", words.moment(measured.measured_at)),
    )


def stats_history(hour: shapes.StatsHistory) -> RenderableType:
    """An hour of a machine as lines of bars; where nothing was measured, dots."""
    if not hour.points:
        why = ", ".join(sorted({gap.reason for gap in hour.gaps})) or "too young"
        return Text(f"no figures of the last hour ({why})", style="bright_black")

    def row(get: Callable[[shapes.StatsPoint], float | None], say: Callable[[float], str]) -> Text:
        values = sparks.means(hour, get)
        known = [value for value in values if value is not None]
        top = max(known, default=0.0)
        told = f"  now {say(known[-1])}, at most {say(top)}" if known else "  not known"
        return Text.assemble((sparks.line(values, top), "green"), told)

    def network(point: shapes.StatsPoint) -> float | None:
        if point.received_bytes is None or point.sent_bytes is None or not point.seconds:
            return None
        return (point.received_bytes + point.sent_bytes) / point.seconds

    rows: list[tuple[str, str | Text | None]] = [
        ("cpu", row(lambda point: point.cpu_percent, lambda value: f"{value:.0f} %")),
        ("memory", row(lambda point: point.memory_bytes, words.size)),
        ("used inside", row(lambda point: point.guest_memory_used_bytes, words.size)),
        ("disk", row(lambda point: point.disk_bytes, words.size)),
        ("network", row(network, lambda value: f"{words.size(value)}/s")),
        ("", f"{words.clock(hour.since)} to {words.clock(hour.until)}, a bar is two minutes"),
    ]
    for gap in hour.gaps:
        reason = gap.reason.replace("_", " ")
        rows.append((reason, f"{words.clock(gap.since)} to {words.clock(gap.until)}"))
    return tables.facts(*rows)


def disk(use: shapes.DiskUse) -> RenderableType:
    """What takes how much disk."""
    table = tables.table("WHAT", "SIZE", right=["SIZE"])
    rows = [
        ("templates", use.templates_bytes),
        ("warm snapshots", use.warm_bytes),
        ("sandboxes", use.sandboxes_bytes),
        ("snapshots", use.snapshots_bytes),
        ("ended sandboxes, kept for recovery", use.ended_bytes),
    ]
    for name, count in rows:
        table.add_row(name, words.size(count))
    return Group(table, Text(), tables.facts(("free", _bytes_bar(use.free_bytes, use.total_bytes))))


def _bytes_bar(used: int, total: int) -> Text:
    return _bar(used, total, f"{words.size(used)} of {words.size(total)}")


def _bar(part: float, whole: float, label: str) -> Text:
    filled = round(_BAR * min(max(part / whole, 0), 1)) if whole else 0
    style = "red" if filled > 0.9 * _BAR else "green"
    return Text.assemble(
        ("━" * filled, style), ("━" * (_BAR - filled), "bright_black"), f"  {label}"
    )
