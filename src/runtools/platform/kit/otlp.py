"""Spans to a collector by OTLP over HTTP. Imported only where the settings name one (`tracing`).

Spans wait in a bounded queue that a thread of its own empties; where the collector is away or slow, spans
are dropped, and nothing that is traced waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtools import __version__
from runtools.errors import RunToolsError
from runtools.platform.kit.tracing import Attributes, Span

log = logging.getLogger(__name__)

_QUEUE = 4096
_BATCH = 512
_EVERY_MS = 2000
_ATTEMPT_SECONDS = 5.0
_CLOSE_SECONDS = 3.0
_W3C = TraceContextTextMapPropagator()


class Otlp:
    """Traces of one part, sent to one collector."""

    is_on = True

    def __init__(self, endpoint: str, headers: Mapping[str, str], part: str) -> None:
        # What the library says of failures is said here once, by the collector's name alone.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        named = {"service.name": f"runtools-{part}", "service.version": __version__}
        self._provider = TracerProvider(
            resource=Resource(named),
            sampler=ParentBased(ALWAYS_ON),
            shutdown_on_exit=False,
            id_generator=_Ids(),
        )
        exporter = OTLPSpanExporter(
            endpoint, headers=dict(headers), timeout=_ATTEMPT_SECONDS, session=_Session()
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                _Told(exporter, urlsplit(endpoint).netloc),
                max_queue_size=_QUEUE,
                schedule_delay_millis=_EVERY_MS,
                max_export_batch_size=_BATCH,
            )
        )
        self._tracer = self._provider.get_tracer("runtools", __version__)

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        serves: bool = False,
        attributes: Attributes | None = None,
    ) -> Iterator[Span]:
        """A span around the body."""
        kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
        above = _remote(parent) if parent is not None else None
        with self._tracer.start_as_current_span(
            name,
            above,
            kind=kind,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as made:
            try:
                yield _Open(made)
            except Exception as exc:
                made.set_attribute("error.type", _kind(exc))
                made.set_status(StatusCode.ERROR)
                raise

    @contextmanager
    def under(self, parent: str | None) -> Iterator[None]:
        """What the body does belongs below a span of another part."""
        if parent is None:
            yield
            return
        token = context.attach(_remote(parent))
        try:
            yield
        finally:
            context.detach(token)

    def record(
        self,
        name: str,
        parent: str | None,
        begun: datetime,
        ended: datetime,
        attributes: Attributes | None = None,
        *,
        place: str | None = None,
        calls: bool = False,
        failed: bool = False,
    ) -> None:
        """A span that is over."""
        above = None if parent is None else _remote(parent)
        with _Ids.given(place):
            made = self._tracer.start_span(
                name,
                Context() if place is not None else above,
                kind=SpanKind.CLIENT if calls else SpanKind.INTERNAL,
                start_time=_nanoseconds(begun),
                attributes=attributes,
            )
        if failed:
            made.set_status(StatusCode.ERROR)
        made.end(_nanoseconds(ended))

    def here(self) -> str | None:
        """The present span."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier.get("traceparent")

    def close(self) -> None:
        """Send what is left, within a moment."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


class _Ids(RandomIdGenerator):
    """Ids by chance, but for a span whose place was known before it was made."""

    _PLACE: ContextVar[SpanContext | None] = ContextVar("place", default=None)

    @classmethod
    @contextmanager
    def given(cls, place: str | None) -> Iterator[None]:
        """The root that is made in the body has that place."""
        known = None if place is None else trace.get_current_span(_remote(place))
        token = cls._PLACE.set(None if known is None else known.get_span_context())
        try:
            yield
        finally:
            cls._PLACE.reset(token)

    def generate_span_id(self) -> int:
        """The next span's."""
        known = self._PLACE.get()
        return super().generate_span_id() if known is None else known.span_id

    def generate_trace_id(self) -> int:
        """The next trace's."""
        known = self._PLACE.get()
        return super().generate_trace_id() if known is None else known.trace_id


class _Open:
    """A span of the library, as ours."""

    def __init__(self, made: trace.Span) -> None:
        self._made = made

    @property
    def trace_id(self) -> str | None:
        return trace.format_trace_id(self._made.get_span_context().trace_id)

    def note(self, **attributes: str | int | float | bool | None) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._made.set_attribute(name.replace("__", "."), value)

    def rename(self, name: str) -> None:
        self._made.update_name(name)


class _Told(SpanExporter):
    """An exporter that tells of failures once, and of their end."""

    def __init__(self, exporter: SpanExporter, collector: str) -> None:
        self._exporter = exporter
        self._collector = collector
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as exc:  # noqa: BLE001 - the edge of a thread: tracing must hurt nobody
            log.debug("a batch of spans failed: %s", type(exc).__name__)
            result = SpanExportResult.FAILURE
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("traces do not arrive at %s; spans are dropped", self._collector)
        elif self._failing and not failing:
            log.warning("traces arrive at %s again", self._collector)
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Session(requests.Session):
    """Goes to the collector and nowhere else: no proxy of the environment, no redirect with our headers."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def send(self, request: requests.PreparedRequest, **how: Any) -> requests.Response:
        how["allow_redirects"] = False
        return super().send(request, **how)


def _remote(parent: str | None) -> Context:
    """The place that a ``traceparent`` names; a malformed one names none."""
    carrier = {} if parent is None else {"traceparent": parent}
    return _W3C.extract(carrier, context=Context())


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000


def _kind(exc: Exception) -> str:
    return exc.code if isinstance(exc, RunToolsError) else type(exc).__name__
