"""How long who guesses has to wait, in bounded memory. Some failures are free, each more doubles it."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from runtools.platform.kit.clock import Clock

MOST = 10_000
FORGOTTEN_AFTER = 3600.0
_FIRST_SECONDS = 1.0


@dataclass(slots=True)
class _Tries:
    failures: int = 0
    last: float = 0.0  # when the latest of them was
    open: int = 0  # tries of which nobody knows yet


@dataclass(slots=True)
class Try:
    """One that is under way.

    Attributes:
        is_failure: as which it counts when it ends.
    """

    is_failure: bool = True


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
        """For how many seconds the name may not try; 0: it may.

        What is under way counts as failed for as long, and leaves no trace where it was right.
        """
        tries = self._tries.get(name)
        if tries is None:
            return 0.0
        if tries.open:
            return self._pause(tries.failures + tries.open)
        return max(0.0, tries.last + self._pause(tries.failures) - self._clock.monotonic())

    def failed(self, name: str) -> None:
        """Count a failure. Of too many names the one that was tried the longest ago is forgotten."""
        now = self._clock.monotonic()
        tries = self._latest(name)
        is_old = now - tries.last > FORGOTTEN_AFTER
        tries.failures = 1 if is_old else tries.failures + 1
        tries.last = now

    @contextlib.contextmanager
    def trying(self, name: str) -> Iterator[Try]:
        """A try: a failure, unless its ``is_failure`` says otherwise when the body ends."""
        one = Try()
        tries = self._latest(name)
        tries.open += 1
        try:
            yield one
        finally:
            tries.open -= 1
            if one.is_failure:
                self.failed(name)
            elif not tries.open and not tries.failures and self._tries.get(name) is tries:
                del self._tries[name]

    def _latest(self, name: str) -> _Tries:
        tries = self._tries.pop(name, None) or _Tries()
        self._tries[name] = tries
        if len(self._tries) > MOST:
            self._tries.popitem(last=False)
        return tries

    def _pause(self, failures: int) -> float:
        beyond = failures - self._free
        return 0.0 if beyond < 0 else min(_FIRST_SECONDS * 2 ** min(beyond, 30), self._longest)

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._tries)
