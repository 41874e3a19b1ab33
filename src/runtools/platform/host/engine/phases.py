"""Where the milliseconds of a start go: marks on one line of time, so that the parts add up."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from runtools.platform.kit.clock import Clock
from runtools.platform.kit.tracing import Tracing
from runtools.sdk.shapes.sandboxes import Timings

Phase = Literal["queue", "place", "network", "restore", "agent", "first_byte"]


class Phases:
    """Time since the previous mark belongs to the phase that is marked.

    Things done side by side are counted once: a phase is what was waited for it alone.
    """

    def __init__(self, clock: Clock, tracing: Tracing) -> None:
        """What is traced belongs to the span in which this is made."""
        self._clock = clock
        self._tracing = tracing
        self._within = tracing.here()
        self._at = clock.now()
        self._begun = self._last = clock.monotonic()
        self._spent: dict[Phase, float] = {}

    def connected(self) -> None:
        """The guest accepted a connection; the first time it ends the phase of the agent."""
        if "agent" not in self._spent:
            self.mark("agent")

    def mark(self, phase: Phase) -> None:
        """End a phase."""
        now = self._clock.monotonic()
        self._spent[phase] = self._spent.get(phase, 0.0) + now - self._last
        if self._tracing.is_on:
            begun, ended = (
                self._at + timedelta(seconds=at - self._begun) for at in (self._last, now)
            )
            self._tracing.record(phase, self._within, begun, ended)
        self._last = now

    def timings(self) -> Timings:
        """What was spent so far, in milliseconds; the total runs until now."""
        parts = {f"{phase}_ms": round(spent * 1000, 2) for phase, spent in self._spent.items()}
        total = round((self._clock.monotonic() - self._begun) * 1000, 2)
        return Timings(**parts, total_ms=total)
