"""What the machine says of itself, read from ``/proc``: stats for people, activity for the idle timer."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from runtools.guest import netinfo, procs


class Meter:
    """Readings; the share of CPU is counted from the reading before."""

    def __init__(self, own_port: int) -> None:
        self.own_port = own_port
        self._lock = threading.Lock()
        self._busy, self._total = cpu_ticks()

    def stats(self) -> dict[str, Any]:
        """The answer to ``stats``."""
        memory_total, memory_free = _memory()
        disk = os.statvfs("/")
        return {
            "cpu_percent": self._cpu_percent(),
            "memory_used": memory_total - memory_free,
            "memory_total": memory_total,
            "disk_used": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            "disk_total": disk.f_blocks * disk.f_frsize,
            "uptime": _uptime(),
            "processes": procs.count(),
            "ports": [p for p in netinfo.listening() if p != self.own_port],
            "clock": time.time(),
        }

    def activity(self, running: int, output: int) -> dict[str, Any]:
        """The answer to ``activity``; ``traffic`` is None where the kernel does not tell it."""
        busy, total = cpu_ticks()
        connections, traffic = netinfo.inbound(self.own_port)
        return {
            "running": running,
            "output": output,
            "connections": connections,
            "traffic": traffic,
            "busy": busy,
            "total": total,
        }

    def _cpu_percent(self) -> float:
        busy, total = cpu_ticks()
        with self._lock:
            used, passed = busy - self._busy, total - self._total
            self._busy, self._total = busy, total
        return round(100 * used / passed, 2) if passed > 0 else 0.0


def cpu_ticks() -> tuple[int, int]:
    """Ticks that all CPUs worked, and that passed on all of them, since boot."""
    with open("/proc/stat", "rb") as file:
        # user nice system idle iowait irq softirq steal; guest times are within user's.
        ticks = [int(word) for word in file.readline().split()[1:9]]
    total = sum(ticks)
    return total - ticks[3] - ticks[4], total


def _memory() -> tuple[int, int]:
    fields = {}
    with open("/proc/meminfo") as file:
        for line in file:
            name, _, rest = line.partition(":")
            fields[name] = int(rest.split()[0]) << 10
    return fields["MemTotal"], fields["MemAvailable"]


def _uptime() -> float:
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])
