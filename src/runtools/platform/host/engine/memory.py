"""How much of the machine's memory sandboxes may take."""

from __future__ import annotations

from pathlib import Path


def for_sandboxes_mb() -> int:
    """The machine's total less one eighth, which is the system's and the platform's own."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024 * 7 // 8
    raise RuntimeError("/proc/meminfo names no MemTotal")
