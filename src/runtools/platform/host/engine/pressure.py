"""How much memory was wanted when something ended: by the VMM, in the guest, on the host."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from runtools.sdk.shapes.inside import Stats

_PSI = Path("/proc/pressure/memory")
_MB = 2**20


def words(limit: str | None, stats: Stats | None, now: datetime) -> str | None:
    """One sentence, or None where nothing is known. ``limit`` is what the VMM's own limit did."""
    parts = [] if limit is None else [limit]
    if stats is not None:
        age = max(0.0, (now - stats.measured_at).total_seconds())
        used, total = stats.memory_used_bytes // _MB, stats.memory_total_bytes // _MB
        parts.append(f"the guest used {used} of {total} MB {age:.0f} s before")
    host = _host()
    if host is not None:
        parts.append(f"the host waited for memory {host} % of the last 10 s")
    return "; ".join(parts) or None


def _host() -> str | None:
    """The kernel's `some avg10`, where it keeps count."""
    try:
        first = _PSI.read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    fields = dict(word.split("=") for word in first.split()[1:])
    return fields.get("avg10")
