"""How much memory a process takes."""

from __future__ import annotations

from pathlib import Path


def pss_mb(pid: int) -> float:
    """MB that a process takes by itself, and its share of what it shares."""
    return _mb(f"/proc/{pid}/smaps_rollup", "Pss")


def resident_mb(pid: int) -> float:
    """MB that it has in memory now."""
    return _mb(f"/proc/{pid}/status", "VmRSS")


def peak_mb(pid: int) -> float:
    """MB that it had at most, since `begin_anew`."""
    return _mb(f"/proc/{pid}/status", "VmHWM")


def begin_anew(pid: int) -> None:
    """Forget its peak."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _mb(file: str, name: str) -> float:
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
