"""The HTTP client that providers are spoken to with: it connects only to addresses that were checked.

A name is resolved and checked at the moment of connecting, as for everything that users name
(`kit/outbound`). Proxies of the environment are not used, redirects not followed. No more is read of an
answer than it may have: whoever is asked may be anybody, and all of it would lie in the worker's memory.
Cookies are not kept: one client asks for many orgs, and what one is given is no other's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore2
import httpx2

from runtools.platform.kit.outbound import Outbound, Refused, check_headers

_TRIED = 3
_CONNECT_SECONDS = 5.0
_SILENT_SECONDS = 600.0  # a model may think for minutes before its first word
_CONNECTIONS = 256
MOST_BYTES = 64 * 1024 * 1024
"""Of one answer: the longest that models give, with some hundred bytes around each of its tokens."""
MOST_OF_A_LINE = 16 * 1024 * 1024
"""Parsers join a line from its pieces, again and again: one without end would cost the square of it."""
_PLAIN = frozenset({"", "identity"})


class Unbounded(httpx2.StreamError):
    """An answer is larger than it may be, or hides how large it is."""


def client(
    outbound: Outbound, headers: Mapping[str, str] | None = None, *, most: int = MOST_BYTES
) -> httpx2.AsyncClient:
    """A client that reaches what may be reached.

    Args:
        headers: sent with each request.
        most: bytes of an answer; reading on raises `Unbounded`.
    """
    return httpx2.AsyncClient(
        headers=headers,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        mounts={
            "http://": _Transport(outbound, most, plain=True),
            "https://": _Transport(outbound, most, plain=False),
        },
        timeout=httpx2.Timeout(_SILENT_SECONDS, connect=_CONNECT_SECONDS, write=60.0),
        trust_env=False,
        follow_redirects=False,
    )


class _Transport(httpx2.AsyncHTTPTransport):
    """httpx's own, over a pool that connects by the check, with a bound on what it reads."""

    def __init__(self, outbound: Outbound, most: int, *, plain: bool) -> None:
        super().__init__(trust_env=False)
        self._most = most
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=None if plain else outbound.context(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=60.0,
            network_backend=_Checked(outbound, plain=plain),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask for an answer that is as large as it looks, and read no more of it than it may have."""
        check_headers(request.headers.multi_items())
        request.headers["Accept-Encoding"] = "identity"
        answer = await super().handle_async_request(request)
        coding = answer.headers.get("Content-Encoding", "").lower()  # several headers are joined
        if {one.strip() for one in coding.split(",")} - _PLAIN:
            await answer.aclose()
            raise Unbounded(f"the answer is packed ({coding[:80]}), which was not asked for")
        assert isinstance(answer.stream, httpx2.AsyncByteStream)  # noqa: S101 - httpx's own
        return httpx2.Response(
            answer.status_code,
            headers=answer.headers,
            stream=_Bounded(answer.stream, self._most),
            extensions=answer.extensions,
        )


class _Bounded(httpx2.AsyncByteStream):
    """What comes, as long as it is not too much."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        whole = line = 0
        async for piece in self._stream:
            whole += len(piece)
            end = piece.rfind(b"\n")
            line = line + len(piece) if end < 0 else len(piece) - end - 1
            if whole > self._most or line > MOST_OF_A_LINE:
                raise Unbounded(f"the answer is larger than it may be: {self._most} bytes")
            yield piece

    async def aclose(self) -> None:
        """Read no further."""
        await self._stream.aclose()


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connects to an address that was checked a moment ago, and to no other."""

    def __init__(self, outbound: Outbound, *, plain: bool) -> None:
        self._outbound = outbound
        self._plain = plain
        self._real = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, check, connect: in this order and in one place."""
        try:
            found = await self._outbound.addresses(host, port, plain=self._plain)
        except Refused as exc:
            raise httpcore2.ConnectError(str(exc)) from exc
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in found[:_TRIED]:
            try:
                return await self._real.connect_tcp(address, port, timeout=timeout)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._real.sleep(seconds)
