"""What the kernel says that a process has taken: processor time, memory, and for how long it has been."""

from __future__ import annotations

import os
from pathlib import Path

from runtools.platform.core.ports.driver import Usage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Positions after the name in brackets, which may hold anything: see proc(5), less three.
_USER, _SYSTEM, _STARTED, _RESIDENT = 11, 12, 19, 21


def usage(pid: int) -> Usage | None:
    """Read once; None for a process that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(b")")[2].split()
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    return Usage(
        cpu_seconds=(int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS,
        memory_bytes=int(fields[_RESIDENT]) * _PAGE,
        age_seconds=max(0.0, since_boot - int(fields[_STARTED]) / _TICKS),
    )
