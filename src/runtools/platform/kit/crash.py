"""Named points at which a process can be made to kill itself, so that tests can show what survives.

The name comes from the setting ``crash_at``; without one every point is a comparison and nothing
more. ``name#3`` means the third time the point is reached.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass


@dataclass(slots=True)
class _Trap:
    name: str = ""
    left: int = 0


_trap = _Trap()


def arm(point: str) -> None:
    """Choose the point; an empty string disarms."""
    name, _, nth = point.partition("#")
    _trap.name, _trap.left = name, int(nth or 1)


def crash_point(name: str) -> None:
    """Die here by SIGKILL if this is the chosen point."""
    if name != _trap.name:
        return
    _trap.left -= 1
    if _trap.left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
