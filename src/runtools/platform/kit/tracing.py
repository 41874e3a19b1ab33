"""Traces by OpenTelemetry, off unless the settings name a collector.

Where it is off nothing of OpenTelemetry is imported, and a span costs what an empty context manager does.
The place of a span in its trace goes from part to part as the text of a ``traceparent`` header (W3C Trace
Context), which is also what is kept of it where work goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

from runtools.errors import InvalidRequest
from runtools.platform.kit.config import Settings

Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """Something that is being done."""

    @property
    def trace_id(self) -> str | None:
        """The id of its trace; None where there is none."""
        ...

    def note(self, **attributes: str | int | float | bool | None) -> None:
        """Say more of it; dots in names are written as underscores, None is left out."""
        ...

    def rename(self, name: str) -> None:
        """Give it the name that is known only now."""
        ...


class Tracing(Protocol):
    """Makes spans and sends them to a collector, in its own time."""

    is_on: bool

    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        serves: bool = False,
        attributes: Attributes | None = None,
    ) -> AbstractContextManager[Span]:
        """A span around the body, below the present one, or below ``parent`` where that is one.

        ``serves``: it answers a request of another part. An error that leaves the body is noted by its
        class, never by its words.
        """
        ...

    def under(self, parent: str | None) -> AbstractContextManager[None]:
        """What the body does belongs below that span of another part."""
        ...

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
        """A span that is over.

        Args:
            place: its own place in its trace, below which others were put before it was over; it is a root.
            calls: whether it is a request to another service.
            failed: whether it ended with an error.
        """
        ...

    def here(self) -> str | None:
        """The present span, for another part or for later."""
        ...

    def close(self) -> None:
        """Send what is left, but wait for no collector longer than a moment."""
        ...


class _Nothing:
    trace_id = None

    def note(self, **attributes: str | int | float | bool | None) -> None:
        pass

    def rename(self, name: str) -> None:
        pass


_NOTHING = _Nothing()


class Untraced:
    """No traces."""

    is_on = False

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        serves: bool = False,
        attributes: Attributes | None = None,
    ) -> Iterator[Span]:
        """Nothing."""
        yield _NOTHING

    @contextmanager
    def under(self, parent: str | None) -> Iterator[None]:
        """Nothing."""
        yield

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
        """Nothing."""

    def here(self) -> str | None:
        """Nowhere."""
        return None

    def close(self) -> None:
        """Nothing."""


OFF: Tracing = Untraced()


def from_settings(settings: Settings, part: str) -> Tracing:
    """Traces to where the settings say, under the part's name.

    Raises:
        InvalidRequest: the endpoint or the headers have not their form.
    """
    if not settings.otlp_endpoint:
        return OFF
    endpoint = _checked(settings.otlp_endpoint)
    headers = _headers(settings.otlp_headers)
    from runtools.platform.kit.otlp import Otlp  # noqa: PLC0415 - only where it is wanted

    return Otlp(endpoint, headers, part)


def _checked(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise InvalidRequest(
            "setting otlp_endpoint must be an http(s) URL without a user",
            hint="such as http://127.0.0.1:4318/v1/traces; secrets go into otlp_headers",
        )
    if parts.path in ("", "/"):
        return endpoint.rstrip("/") + "/v1/traces"
    return endpoint


def _headers(text: str) -> dict[str, str]:
    """``name=value,name=value``."""
    headers = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = entry.partition("=")
        if not equals or not name.strip().isascii():
            raise InvalidRequest(
                "setting otlp_headers must be name=value, several with commas",
                hint="the value is not repeated here, because it may be a secret",
            )
        headers[name.strip()] = value.strip()
    return headers
