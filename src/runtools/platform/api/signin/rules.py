"""How long who guesses has to wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

# How many failures are free, by what they are counted for. Somebody who guesses from one place is slowed
# down there first; only guesses from many places slow down the account itself, for who it belongs to, too.
FREE: Mapping[str, int] = {"account-at": 5, "source": 20, "account": 50, "login": 20}
FORGOTTEN_AFTER = timedelta(days=1)
_FIRST_SECONDS = 1
_MOST_SECONDS = 900


def pause(kind: str, failures: int) -> timedelta:
    """How long nothing is tried after so many failures."""
    beyond = failures - FREE[kind]
    if beyond < 0:
        return timedelta()
    return timedelta(seconds=min(_FIRST_SECONDS << min(beyond, 20), _MOST_SECONDS))
