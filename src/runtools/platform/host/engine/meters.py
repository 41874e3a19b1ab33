"""What this host has done, in numbers: counted since its start, never by ids.

Labels take their values from closed lists (acts, phases, reasons), so that their number is bounded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from runtools.platform.core.ports.metrics import Family
from runtools.platform.core.ports.network import Refusal
from runtools.platform.core.states import Act
from runtools.platform.kit import metering
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.metering import SECONDS
from runtools.sdk.shapes.inside import ExecResult
from runtools.sdk.shapes.sandboxes import Cause, StartedFrom, Timings

_PHASES = ("queue", "place", "network", "restore", "agent", "first_byte")


class Meters:
    """The counters of one host part."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._registry = registry = CollectorRegistry()
        ProcessCollector(namespace="runtools_host", registry=registry)
        self._creates = Histogram(
            "runtools_create_seconds",
            "How long sandboxes took from the order until they ran, the queue included",
            ["started_from"],
            registry=registry,
            buckets=SECONDS,
        )
        self._phases = Histogram(
            "runtools_create_phase_seconds",
            "Where that time went",
            ["started_from", "phase"],
            registry=registry,
            buckets=SECONDS,
        )
        self._failed_creates = Counter(
            "runtools_create_failures",
            "Sandboxes that never came to run",
            registry=registry,
        )
        self._acts = Histogram(
            "runtools_act_seconds",
            "How long acts on sandboxes took: pause, resume, fork, snapshot, rollback, destroy",
            ["act", "outcome"],
            registry=registry,
            buckets=SECONDS,
        )
        self._queue = Histogram(
            "runtools_queue_wait_seconds",
            "How long creates and resumes waited for room",
            registry=registry,
            buckets=SECONDS,
        )
        self._execs = Histogram(
            "runtools_exec_seconds",
            "How long commands took, waking the sandbox included",
            ["outcome"],
            registry=registry,
            buckets=SECONDS,
        )
        self._latency = Histogram(
            "runtools_exec_overhead_seconds",
            "The part of it in which the command itself did not run",
            registry=registry,
            buckets=SECONDS,
        )
        self._refusals = Counter(
            "runtools_egress_refusals",
            "What sandboxes wanted to reach and were not let",
            ["reason"],
            registry=registry,
        )

        self._ends = Counter(
            "runtools_unasked_ends",
            "Sandboxes that ended by themselves",
            ["cause"],
            registry=registry,
        )

    def told(self) -> list[Family]:
        """All of it."""
        return metering.families(self._registry)

    def created(self, started_from: StartedFrom, timings: Timings) -> None:
        """A sandbox came to run."""
        self._creates.labels(started_from).observe(timings.total_ms / 1000)
        self._queue.observe(timings.queue_ms / 1000)
        for phase in _PHASES:
            spent = getattr(timings, f"{phase}_ms") / 1000
            self._phases.labels(started_from, phase).observe(spent)

    def not_created(self) -> None:
        """One did not."""
        self._failed_creates.inc()

    def ended(self, cause: Cause) -> None:
        """One ended that nobody had asked to."""
        self._ends.labels(cause).inc()

    def waited(self, seconds: float) -> None:
        """A resume got its room."""
        self._queue.observe(seconds)

    @contextlib.contextmanager
    def act(self, act: Act) -> Iterator[None]:
        """Time an act, by how it ends."""
        begun, outcome = self._clock.monotonic(), "failed"
        try:
            yield
            outcome = "done"
        finally:
            self._acts.labels(act.value, outcome).observe(self._clock.monotonic() - begun)

    @contextlib.contextmanager
    def exec(self) -> Iterator[list[ExecResult]]:
        """Time a command; its result is to be put into what is given."""
        begun = self._clock.monotonic()
        results: list[ExecResult] = []
        try:
            yield results
        finally:
            spent = self._clock.monotonic() - begun
            self._execs.labels("done" if results else "failed").observe(spent)
            for result in results:
                self._latency.observe(max(0.0, spent - result.duration_ms / 1000))

    def refused(self, refusal: Refusal) -> None:
        """A sandbox was refused something."""
        self._refusals.labels(refusal.reason).inc(refusal.times)
