"""Requests to addresses that users name: only where they may go, each within bounds.

A name is resolved and its addresses are checked at the moment of connecting, and the connection is made
to the address that was checked, so a name that answers differently the next time gains nothing. No proxy
of the environment is used, no redirect is followed, and no more is read of an answer than was asked for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore

from runtools.errors import InvalidRequest
from runtools.platform.core.headers import may_hold

Address = IPv4Address | IPv6Address
AnyNetwork = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]

_UNICAST = ip_network("2000::/3")
_TRIED = 3
_SHOWN = 80  # characters of a name that is none
_CONNECT_SECONDS = 5.0
# Names are looked up in threads; a resolver that hangs must not take those that others need.
# As many as there may be requests: each may be for a name whose nameserver is silent.
_RESOLVERS = 128


class Refused(Exception):
    """The address is none that may be spoken to; the message says which and why."""


class Failed(Exception):
    """No answer came; the message says why, without the URL (its query may be secret)."""


class Unsendable(Failed):
    """The request has a header that none may be; the message says which, without its value."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. ``body`` is empty where nobody asked for it."""

    status: int
    body: bytes


def networks(text: str, setting: str = "outbound_allow") -> tuple[AnyNetwork, ...]:
    """Networks as a setting names them: CIDR, separated by commas.

    Raises:
        InvalidRequest: one of them is none.
    """
    try:
        return tuple(ip_network(word.strip()) for word in text.split(",") if word.strip())
    except ValueError as exc:
        raise InvalidRequest(f"setting {setting}: {exc}", hint="e.g. 10.0.0.0/8, ::1") from exc


def is_public(address: Address) -> bool:
    """Whether the address is one of the internet's, and not a way around to one that is not."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    inner = address.sixtofour
    return (
        address in _UNICAST
        and address.is_global
        and address.teredo is None
        and (inner is None or is_public(inner))
    )


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Refuse headers that cannot be sent. Whoever would send them says their values in what it raises.

    Raises:
        Unsendable: there is one.
    """
    for name, value in headers:
        if value and not may_hold(value):
            raise Unsendable(f"its header {name} holds what no header may")


class Outbound:
    """Sends requests.

    Args:
        allowed: networks that may be spoken to though they are not public.
        resolve: (tests) the addresses of a name.
        tls: (tests) whose certificates are believed; default: those of the system.
    """

    def __init__(
        self,
        allowed: Iterable[AnyNetwork] = (),
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = tuple(allowed)
        self._threads = ThreadPoolExecutor(_RESOLVERS, "resolve")
        self._resolve = resolve or self._looked_up
        self._tls = tls

    async def check(self, url: str) -> None:
        """Refuse a URL that could not be spoken to now.

        Raises:
            Refused: it is malformed, its name does not resolve in time, or its addresses may not be used.
        """
        parts = split(url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self.addresses(host, port_of(parts), plain=parts.scheme == "http")
        except TimeoutError:
            raise Refused(f"{host} was not resolved within {_CONNECT_SECONDS:g} s") from None

    async def addresses(self, host: str, port: int, *, plain: bool) -> list[str]:
        """Where a name may be spoken to now; ``plain``: without TLS, which needs to be allowed.

        Raises:
            Refused: nowhere.
        """
        try:
            found = await self._resolve(host, port)
        except OSError as exc:
            raise Refused(f"{host} does not resolve: {exc.strerror or exc}") from exc
        except UnicodeError:  # a label that is empty or too long
            raise Refused(f"{host[:_SHOWN]!r} is no name") from None
        usable = [text for text in found if self._may(_unwrapped(text), plain=plain)]
        if usable:
            return usable
        what = ", ".join(found[:_TRIED]) or "nothing"
        why = (
            "may be reached over https only"
            if plain and self._any_public(found)
            else ("is not public, and the operator has not allowed it (setting outbound_allow)")
        )
        raise Refused(f"{host} ({what}) {why}")

    async def ask(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        seconds: float,
        *,
        keep: int = 0,
    ) -> Answer:
        """Send a request. It may take so long in all, resolving included.

        Args:
            keep: bytes of the answer's body that are read; what has more is a failure. 0: none is read.

        Raises:
            Refused: it may not be spoken to.
            Failed: no answer came in time, none that is HTTP, or too much of one.
            Unsendable: no header may be as one of these is.
        """
        parts = split(url)
        check_headers(headers)
        plain = parts.scheme == "http"
        content = [("Host", parts.netloc), ("Content-Length", str(len(body))), *headers]
        target = parts.path or "/"
        if parts.query:
            target = f"{target}?{parts.query}"
        asked = httpcore.URL(
            scheme=parts.scheme, host=parts.hostname or "", port=port_of(parts), target=target
        )
        pool = httpcore.AsyncConnectionPool(
            ssl_context=None if plain else self.context(),
            max_connections=1,
            network_backend=_Checked(self, plain=plain),
        )
        try:
            async with (
                asyncio.timeout(seconds),
                pool,
                pool.stream(
                    method,
                    asked,
                    headers=content,
                    content=body,
                    extensions={"timeout": {"connect": _CONNECT_SECONDS}},
                ) as answer,
            ):
                return Answer(answer.status, await _body(answer, keep) if keep else b"")
        except TimeoutError:
            raise Failed(f"no answer within {seconds:g} s") from None
        except httpcore.TimeoutException:
            raise Failed(f"no connection within {_CONNECT_SECONDS:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError) as exc:
            raise Failed(str(exc)[:200] or type(exc).__name__) from exc

    def context(self) -> ssl.SSLContext:
        """How the other side is known; made once, for it reads all certificates of the system."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def close(self) -> None:
        """Look up no more names."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _may(self, address: Address, *, plain: bool) -> bool:
        if any(address in network for network in self._allowed):
            return True
        return not plain and is_public(address)

    def _any_public(self, found: Iterable[str]) -> bool:
        return any(is_public(_unwrapped(text)) for text in found)

    async def _looked_up(self, host: str, port: int) -> list[str]:
        def look() -> list[str]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(entry[4][0]) for entry in found))

        return await asyncio.get_running_loop().run_in_executor(self._threads, look)


async def _body(answer: httpcore.Response, most: int) -> bytes:
    read = bytearray()
    async for chunk in answer.aiter_stream():
        read += chunk
        if len(read) > most:
            raise Failed(f"the answer is larger than {most} bytes")
    return bytes(read)


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to an address that was checked a moment ago, and to no other."""

    def __init__(self, outbound: Outbound, *, plain: bool) -> None:
        self._outbound = outbound
        self._plain = plain
        self._real = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check, connect: in this order and in one place."""
        found = await self._outbound.addresses(host, port, plain=self._plain)
        failure: Exception = OSError("no address")
        for address in found[:_TRIED]:
            try:
                return await self._real.connect_tcp(address, port, timeout=timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._real.sleep(seconds)


def split(url: str) -> SplitResult:
    """The parts of a URL that can be posted to.

    Raises:
        Refused: it is malformed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise Refused(f"it is no URL: {exc}") from exc
    if parts.scheme not in ("http", "https"):
        raise Refused("it must begin with https:// (or http://, where the operator allows it)")
    if not parts.hostname or port == 0:
        raise Refused("it names no host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise Refused("a name, password or fragment in it would be lost: leave them out")
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        raise Refused("it has characters that must be percent-encoded")
    return parts


def port_of(parts: SplitResult) -> int:
    """Its port, or that of its scheme."""
    return parts.port or (80 if parts.scheme == "http" else 443)


def _unwrapped(text: str) -> Address:
    """The address that is really spoken to: IPv4 may come dressed as IPv6."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
