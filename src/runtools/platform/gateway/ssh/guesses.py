"""How long who guesses has to wait, in bounded memory. Some failures are free, each more doubles it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from runtools.platform.kit.clock import Clock

MOST = 10_000
FORGOTTEN_AFTER = 3600.0
_FIRST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Tries:
    failures: int
    last: float
    until: float


class Guesses:
    """Failures by name: a source's address, or a sandbox.

    Args:
        free: how many failures cost nothing.
        longest: the most seconds that anybody has to wait.
    """

    def __init__(self, clock: Clock, *, free: int, longest: float) -> None:
        self._clock = clock
        self._free = free
        self._longest = longest
        self._tries: OrderedDict[str, _Tries] = OrderedDict()

    def wait(self, name: str) -> float:
        """For how many seconds the name may not try; 0: it may."""
        tries = self._tries.get(name)
        return 0.0 if tries is None else max(0.0, tries.until - self._clock.monotonic())

    def failed(self, name: str) -> None:
        """Count a failure. Of too many names the one that failed the longest ago is forgotten."""
        now = self._clock.monotonic()
        before = self._tries.get(name)
        if before is None or now - before.last > FORGOTTEN_AFTER:
            self._count(name, 1, now)
        else:
            self._count(name, before.failures + 1, now)
        if len(self._tries) > MOST:
            self._tries.popitem(last=False)

    def forgive(self, name: str) -> None:
        """Take a failure back that was counted before it was known to be none."""
        before = self._tries.get(name)
        if before is not None:
            self._count(name, before.failures - 1, before.last)

    def _count(self, name: str, failures: int, at: float) -> None:
        self._tries.pop(name, None)
        beyond = failures - self._free
        pause = 0.0 if beyond < 0 else min(_FIRST_SECONDS * 2 ** min(beyond, 30), self._longest)
        if failures:
            self._tries[name] = _Tries(failures, at, at + pause)

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._tries)
