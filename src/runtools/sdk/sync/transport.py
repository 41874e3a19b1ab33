# Generated from sdk/transport.py by scripts/generate_sync.py: edit that, then run it.
"""One platform over HTTP: calls that are repeated safely, streams, and events that resume.

Built on httpcore's connection pool directly: its client layer would add half a millisecond to every
call, and proxy settings of the environment must not stand between here and a loopback address.
"""

from __future__ import annotations

import ssl
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpcore

from runtools.errors import RunToolsError
from runtools.sdk import sse, wire
from runtools.sdk.concurrency import sync_chunks, sync_sleep
from runtools.sdk.local import Source
from runtools.sdk.patience import FOLLOW_SECONDS, Patience
from runtools.sdk.settings import Settings

T = TypeVar("T")
Headers = list[tuple[bytes, bytes]]

_CONNECT_SECONDS = 5.0
_SEND_SECONDS = 120.0
_FOLLOW_SECONDS = 60.0  # streams of events carry keep-alive comments more often than that
_JSON = (b"Content-Type", b"application/json")
_OCTETS = (b"Content-Type", b"application/octet-stream")


class Transport:
    """The pool of connections to one platform. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        retry_seconds: float,
        headers: Mapping[str, str] | None = None,
        waiting: Callable[[RunToolsError], None] | None = None,
    ) -> None:
        parts = urlsplit(settings.url)
        self.url = settings.url
        self._scheme = parts.scheme.encode()
        self._host = (parts.hostname or "").encode()
        self._port = parts.port
        self._prefix = parts.path
        self._headers: Headers = [
            (b"Host", parts.netloc.encode()),
            (b"User-Agent", wire.USER_AGENT.encode()),
            (b"Accept-Encoding", b"identity"),
        ]
        if settings.api_key:
            self._headers.append((b"Authorization", b"Bearer " + settings.api_key.encode()))
        self._headers += [(name.encode(), text.encode()) for name, text in (headers or {}).items()]
        self._retry_seconds = retry_seconds
        self._waiting = waiting
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context() if parts.scheme == "https" else None,
            max_connections=128,
            max_keepalive_connections=32,
            keepalive_expiry=60.0,
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: wire.Query | None = None,
        body: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        key: str | None = None,
        seconds: float = wire.CALL_SECONDS,
        root: str = "/v1",
    ) -> wire.Answer:
        """One request and its whole answer, repeated while the trouble may pass.

        ``data`` is a body of bytes in place of ``body``.
        ``key`` is the idempotency key; a mutating call without one gets a fresh one.

        Raises:
            RunToolsError: what the platform answered, or `Unavailable` when it did not.
        """
        headers, content = [*self._headers], b""
        if method != "GET":
            content = data if data is not None else b"" if body is None else wire.payload(body)
            headers.append((b"Idempotency-Key", wire.header(key or wire.new_key())))
            headers.append((b"Content-Length", b"%d" % len(content)))
        if content:
            headers.append(_JSON if data is None else _OCTETS)
        request = self._request(method, wire.target(root + path, query), headers, content, seconds)
        return self._repeated(lambda: self._whole(request))

    def pages(
        self, path: str, query: Sequence[tuple[str, object]], size: int
    ) -> Generator[Any, None, None]:
        """Every item of a list, a page at a time as they are wanted."""
        cursor: str | None = None
        while True:
            answer = self.call("GET", path, query=[*query, ("limit", size), ("cursor", cursor)])
            yield from wire.items(answer.data)
            cursor = answer.next_cursor
            if cursor is None:
                return

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        query: wire.Query | None = None,
        extra: Headers | None = None,
        seconds: float = wire.WAKE_SECONDS,
        once: bool = False,
    ) -> Iterator[Download]:
        """The body of a GET, as it comes. Its beginning is repeated while the trouble may pass.

        ``once``: it is not, the caller does that.

        Raises:
            RunToolsError: what the platform answered, or `Unavailable` when the stream broke off.
        """
        headers = [*self._headers, *(extra or [])]
        uri = wire.target(f"/v1{path}", query)
        request = self._request("GET", uri, headers, b"", seconds)
        begun = self._begun(request) if once else self._repeated(lambda: self._begun(request))
        response = begun
        try:
            yield Download(self.url, response)
        finally:
            response.close()

    def put(
        self,
        path: str,
        source: Source,
        *,
        query: wire.Query,
        on_progress: Callable[[int], None] | None = None,
        key: str | None = None,
    ) -> wire.Answer:
        """Send a body as it is read; repeated only when it can be read again."""
        named = wire.header(key or wire.new_key())
        headers = [*self._headers, (b"Idempotency-Key", named), _OCTETS]
        if source.size is None:
            headers.append((b"Transfer-Encoding", b"chunked"))
        else:
            headers.append((b"Content-Length", b"%d" % source.size))
        uri = wire.target(f"/v1{path}", query)

        def attempt() -> wire.Answer:
            chunks = sync_chunks(source.read(on_progress))
            return self._whole(self._request("PUT", uri, headers, chunks, wire.ACT_SECONDS))

        return self._repeated(attempt) if source.again else attempt()

    def follow(
        self, path: str, *, query: wire.Query | None = None, after: str | None = None
    ) -> Generator[sse.Event, None, None]:
        """The events of a stream, resumed after the last one seen whenever it breaks off.

        The caller stops it by leaving the loop.
        """
        last, patience = after, Patience(FOLLOW_SECONDS)
        trouble: RunToolsError
        while True:
            began = monotonic()
            resume = [] if last is None else [(b"Last-Event-ID", wire.header(last))]
            try:
                with self.stream(
                    path, query=query, extra=resume, seconds=_FOLLOW_SECONDS, once=True
                ) as response:
                    parser = sse.Parser()
                    for chunk in response.chunks():
                        if monotonic() - began > FOLLOW_SECONDS:
                            patience.restart()  # a quiet stream that holds is a good one
                        for event in parser.feed(chunk):
                            last = event.id or last
                            patience.restart()
                            yield event
                trouble = wire.unreachable(self.url, "the stream of events ends again and again")
            except wire.Silence:
                trouble = wire.unreachable(self.url, "the stream of events is silent")
            except RunToolsError as exc:
                trouble = exc
            pause = patience.after(trouble)
            if pause is None:
                raise trouble
            sync_sleep(pause)

    def _request(
        self,
        method: str,
        uri: str,
        headers: Headers,
        content: bytes | Iterable[bytes],
        seconds: float,
    ) -> httpcore.Request:
        url = httpcore.URL(
            scheme=self._scheme, host=self._host, port=self._port, target=self._prefix + uri
        )
        timeout = {
            "connect": _CONNECT_SECONDS,
            "read": seconds,
            "write": _SEND_SECONDS,
            "pool": seconds,
        }
        return httpcore.Request(
            method, url, headers=headers, content=content, extensions={"timeout": timeout}
        )

    def _repeated(self, attempt: Callable[[], T]) -> T:
        patience = Patience(self._retry_seconds)
        while True:
            try:
                return attempt()
            except RunToolsError as exc:
                pause = patience.after(exc)
                if pause is None:
                    raise
                if self._waiting is not None and patience.is_tried:
                    self._waiting(exc)
            sync_sleep(pause)

    def _whole(self, request: httpcore.Request) -> wire.Answer:
        response = self._begun(request)
        try:
            with _translated(self.url):
                return wire.answer(response.status, response.read())
        finally:
            response.close()

    def _begun(self, request: httpcore.Request) -> httpcore.Response:
        with _translated(self.url):
            response = self._pool.handle_request(request)
        if response.status < 400:
            return response
        try:
            with _translated(self.url):
                after = _value(response, "Retry-After")
                raise wire.error(response.status, response.read(), after)
        finally:
            response.close()


class Download:
    """A response whose body is read as it comes."""

    def __init__(self, url: str, response: httpcore.Response) -> None:
        self._url = url
        self._response = response

    @property
    def size(self) -> int | None:
        """How many bytes will come, where the platform said so."""
        value = self.header("Content-Length")
        return int(value) if value is not None and value.isdigit() else None

    def header(self, name: str) -> str | None:
        """A header of the answer."""
        return _value(self._response, name)

    def chunks(self) -> Generator[bytes, None, None]:
        """The bytes; ends only when all of them came."""
        with _translated(self._url, wire.broke_off):
            yield from self._response.iter_stream()


def _value(response: httpcore.Response, name: str) -> str | None:
    wanted = name.lower().encode()
    for key, value in response.headers:
        if key.lower() == wanted:
            return value.decode("latin-1")
    return None


@contextmanager
def _translated(
    url: str, lost: Callable[[str, str], RunToolsError] = wire.unreachable
) -> Iterator[None]:
    try:
        yield
    except httpcore.ReadTimeout:
        raise wire.Silence(f"{url} did not answer in time", hint="it may still do it") from None
    except httpcore.TimeoutException:
        raise wire.unreachable(url, "no connection in time") from None
    except (httpcore.NetworkError, httpcore.ProtocolError) as exc:
        raise lost(url, str(exc) or type(exc).__name__) from None
