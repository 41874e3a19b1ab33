"""What is said where the host's disk has no room."""

from __future__ import annotations

from typing import Final

from runtools.errors import Unavailable

HINT: Final = "runtools df shows what takes the disk, runtools prune frees some of it"


def refused(what: str, exc: OSError) -> Unavailable:
    """The disk does not take what was to be written down of something; all is as before."""
    return Unavailable(f"{what} cannot be written down on its host: {exc}", hint=HINT)
