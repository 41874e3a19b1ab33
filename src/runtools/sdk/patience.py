"""How long and how often one call is repeated, and after which failures.

A repeat is always safe: a mutating call keeps its idempotency key, so that the platform answers it and
does nothing twice. Only who has ended its own session or key by the call is let in no more to be told:
`Unauthenticated` on a repeat may then say that it is done. What is bounded is the waiting: a platform that
restarts is back within seconds, and a failure that itself took long to be said is not waited for again and
again.
"""

from __future__ import annotations

import random
from time import monotonic

from runtools.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    GuestUnreachable,
    RateLimited,
    RunToolsError,
    Unavailable,
)

CALL_SECONDS = 10.0  # what a call is repeated for
FOLLOW_SECONDS = 30.0  # what a stream that breaks off is taken up again for, with nothing new
_TOLD_AFTER = 1.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Patience:
    """The repeats of one call.

    Args:
        seconds: repeats begin within so long after the first failure; 0: there are none. After a
            sandbox that is silent or late the time of the call itself counts, too.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Something came: what went wrong before is forgotten."""
        self._began = monotonic()
        self._failed: float | None = None
        self._pause = _FIRST_PAUSE

    @property
    def is_tried(self) -> bool:
        """Whether it has been waited for long enough that somebody who watches should be told."""
        return self._failed is not None and monotonic() - self._failed > _TOLD_AFTER

    def after(self, failure: RunToolsError) -> float | None:
        """Seconds to wait before the next attempt; None: there is to be none."""
        now = monotonic()
        if self._failed is None:
            self._failed = now
        if not is_passing(failure):
            return None
        slow = isinstance(failure, DeadlineExceeded | GuestUnreachable)
        until = (self._began if slow else self._failed) + self._seconds
        pause = _asked(failure) or self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return pause if now + pause < until else None


def is_passing(failure: RunToolsError) -> bool:
    """Whether the same call may succeed in a moment."""
    if isinstance(failure, CapacityExhausted):
        return False
    # Not the children of the last two: a platform that is silent is busy with the call, and an agent
    # that misbehaves does so again.
    return isinstance(failure, Unavailable | RateLimited) or type(failure) in (
        DeadlineExceeded,
        GuestUnreachable,
    )


def _asked(failure: RunToolsError) -> float:
    """What the platform asks to wait before a repeat; 0 when it does not say."""
    value = failure.details.get("retryAfterSeconds", 0)
    return float(value) if isinstance(value, int | float) else 0.0
