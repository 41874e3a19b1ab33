"""The named points at which a worker can be made to kill itself; tests go through all of them."""

from __future__ import annotations

from runtools.platform.kit.crash import crash_point

WORKER_CRASH_POINTS: tuple[str, ...] = (
    "worker.taken",  # the run is ours, nothing is done
    "worker.answered",  # the model has answered, nobody has been told
    "worker.append.sending",  # an outcome is known here only
    "worker.append.written",  # it stands in the log, and nobody here knows
    "worker.call.begun",  # a tool is about to act
    "worker.call.acted",  # it has acted, its result stands nowhere
)

_KNOWN = frozenset(WORKER_CRASH_POINTS)


def reach(name: str) -> None:
    """Die here if a test wants it. A name that is not in the table is a mistake of ours."""
    assert name in _KNOWN, name  # noqa: S101 - a typo here would make a test empty
    crash_point(name)
