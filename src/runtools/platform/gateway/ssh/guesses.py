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
        before = self._tries.pop(name, None)
        if before is not None and now - before.last > FORGOTTEN_AFTER:
            before = None
        failures = 1 if before is None else before.failures + 1
        beyond = failures - self._free
        pause = 0.0 if beyond < 0 else min(_FIRST_SECONDS * 2 ** min(beyond, 30), self._longest)
        self._tries[name] = _Tries(failures, now, now + pause)
        if len(self._tries) > MOST:
            self._tries.popitem(last=False)

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._tries)
