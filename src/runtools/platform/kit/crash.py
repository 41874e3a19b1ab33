"""Named points at which a process can be made to kill itself, so that tests can show what survives.

The name comes from the setting ``crash_at``; without one every point is a comparison and nothing
more. ``name#3`` means the third time the point is reached.
"""

from __future__ import annotations

import os
import signal

_armed: str = ""
_left: int = 0


def arm(point: str) -> None:
    """Choose the point; an empty string disarms."""
    global _armed, _left  # noqa: PLW0603 - one per process by its nature
    name, _, nth = point.partition("#")
    _armed, _left = name, int(nth or 1)


def crash_point(name: str) -> None:
    """Die here by SIGKILL if this is the chosen point."""
    global _left  # noqa: PLW0603
    if name != _armed:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
