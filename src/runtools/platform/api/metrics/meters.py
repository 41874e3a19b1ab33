"""What this api process has done, in numbers: counted since its start, never by ids."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from runtools.platform.core.ports.metrics import Family
from runtools.platform.kit import metering
from runtools.platform.kit.metering import SECONDS

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Meters:
    """The counters of one api process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(namespace="runtools_api", registry=registry)
        self._requests = Counter(
            "runtools_api_requests",
            "Requests by route (none: there is no such), method and status",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "runtools_api_request_seconds",
            "How long they took, streams until their end",
            ["method", "route"],
            registry=registry,
            buckets=SECONDS,
        )
        self._attempts = Counter(
            "runtools_webhook_attempts",
            "Attempts to deliver events",
            ["outcome"],
            registry=registry,
        )
        self._passed_over = Counter(
            "runtools_reports_passed_over",
            "Reports of hosts that could not be taken in; their sandboxes were asked for instead",
            registry=registry,
        )

    def told(self) -> list[Family]:
        """All of it."""
        return metering.families(self._registry)

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request was answered. The route is its pattern: what a caller wrote is no label."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route or "none", str(status)).inc()
        self._seconds.labels(method, route or "none").observe(seconds)

    def passed_over(self) -> None:
        """A report of a host is set aside."""
        self._passed_over.inc()

    def webhook(self, *, arrived: bool) -> None:
        """An event was sent to a receiver."""
        self._attempts.labels("arrived" if arrived else "failed").inc()
