"""The HTTP client that providers are spoken to with: it connects only to addresses that were checked.

A name is resolved and checked at the moment of connecting, as for everything that users name
(`kit/outbound`). Proxies of the environment are not used, redirects not followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import httpcore2
import httpx2

from runtools.platform.kit.outbound import Outbound, Refused

_TRIED = 3
_CONNECT_SECONDS = 5.0
_SILENT_SECONDS = 600.0  # a model may think for minutes before its first word
_CONNECTIONS = 256


def client(outbound: Outbound, headers: Mapping[str, str] | None = None) -> httpx2.AsyncClient:
    """A client that reaches what may be reached."""
    return httpx2.AsyncClient(
        headers=headers,
        mounts={
            "http://": _Transport(outbound, plain=True),
            "https://": _Transport(outbound, plain=False),
        },
        timeout=httpx2.Timeout(_SILENT_SECONDS, connect=_CONNECT_SECONDS, write=60.0),
        trust_env=False,
        follow_redirects=False,
    )


class _Transport(httpx2.AsyncHTTPTransport):
    """httpx's own, over a pool that connects by the check."""

    def __init__(self, outbound: Outbound, *, plain: bool) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=None if plain else outbound.context(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=60.0,
            network_backend=_Checked(outbound, plain=plain),
        )


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
