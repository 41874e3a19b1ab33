"""What is said of requests that are made twice."""

from __future__ import annotations

from runtools.errors import Conflict


def under_way() -> Conflict:
    """The same request is being carried out at this moment, in another process maybe."""
    return Conflict("the same request is under way", hint="ask again in a moment with the same key")
