"""How many files and connections this process may have open."""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """Let this process have as many open as it may; returns how many."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
