"""How long the tests of each area took: what `pytest --areas` prints at its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

_DEPTH = 3
"""So much of a test's path names its area: ``tests/flow/api``, ``tests/vm/test_ssh.py``."""


def lines(took: Iterable[tuple[str, float]], wall_seconds: float) -> Iterator[str]:
    """A line for each area, the longest first, of each test's id and seconds.

    Tests that run side by side take more than the clock says: an area's share is of what all took.
    """
    areas: defaultdict[str, float] = defaultdict(float)
    for test, seconds in took:
        path = PurePosixPath(test.partition("::")[0])
        areas["/".join(path.parts[:_DEPTH])] += seconds
    total = sum(areas.values())
    for area, seconds in sorted(areas.items(), key=lambda one: -one[1]):
        share = seconds / total if total else 0.0
        yield f"{share:6.1%}  {share * wall_seconds / 60:5.1f} min  {area}"
