"""Doing something inside a network namespace, without ever being there with a thread that others use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from runtools.platform.kit import linux
from runtools.platform.kit.spent import in_spent_thread

NAMESPACES = Path("/run/netns")

T = TypeVar("T")


def setns(fd: int) -> None:
    """Move the calling thread, for good, into a network namespace.

    Raises:
        OSError: it cannot.
    """
    linux.setns(fd, linux.CLONE_NEWNET)


async def inside(namespace: str, act: Callable[[], T]) -> T:
    """Have a quick act done inside a namespace. What it opens there stays there: sockets, taps.

    Raises:
        FileNotFoundError: there is no such namespace.
    """

    def go() -> T:
        fd = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd)
        finally:
            os.close(fd)
        return act()

    return await in_spent_thread(go, f"in {namespace}")
