"""What is said of requests that are made twice."""

from __future__ import annotations

from runtools.errors import Unavailable


def under_way() -> Unavailable:
    """The same request is being carried out at this moment by another process: its key stays in use."""
    return Unavailable(
        "the same request is under way", hint="ask again in a moment with the same key"
    )
