"""The machine's memory, and how much of it sandboxes may take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the machine: all, and what could be taken now without harm."""

    total: int
    available: int


def machine() -> Memory:
    """How it stands."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(rest.split()[0]) * 1024
    return Memory(total=found["MemTotal"], available=found["MemAvailable"])


def for_sandboxes_mb() -> int:
    """The machine's total less one eighth, which is the system's and the platform's own."""
    return machine().total // 2**20 * 7 // 8
