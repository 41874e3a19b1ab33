"""How many files and connections a process of ours may have open: as many as the machine lets it."""

from __future__ import annotations

import resource


def most() -> int:
    """What the limit could be raised to."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_limit() -> None:
    """From what shells and services are given (1024, mostly) to the most, for us and what we start."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (most(), most()))
