"""The addresses of a sandbox's ports, who may enter, and a client for what listens there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

import httpcore

from runtools.errors import GuestUnreachable
from runtools.sdk import shapes, wire
from runtools.sdk.answers import HttpAnswer
from runtools.sdk.shapes.dev_urls import DEFAULT_TTL_SECONDS, Access
from runtools.sdk.transport import AsyncTransport

_PARAMETER = "runtools-link"
_HEADER = "X-RunTools-Key"
_REFUSED = "x-runtools-refused"  # on a 404 of the gateway's own
_RENEWED_BEFORE = timedelta(seconds=60)
_HTTP_SECONDS = 120.0
_NOT_FOUND = 404
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class AsyncDevUrls:
    """The dev URLs of one sandbox: ``sb.urls``."""

    def __init__(self, transport: AsyncTransport, sandbox: str) -> None:
        self._transport = transport
        self._path = f"{sandbox}/urls"

    async def list(self) -> shapes.DevUrls:
        """Their pattern, who may enter, and the ports with choices of their own."""
        return wire.shape(shapes.DevUrls, (await self._transport.call("GET", self._path)).data)

    async def get(self, port: int) -> shapes.DevUrl:
        """The address of a port, and who may enter. Nothing need listen there yet."""
        answer = await self._transport.call("GET", f"{self._path}/{port}")
        return wire.shape(shapes.DevUrl, answer.data)

    async def choose(
        self, access: Access, port: int | None = None, *, idempotency_key: str | None = None
    ) -> shapes.DevUrls:
        """Choose who may enter a port (``private`` or ``public``), or all without a choice of their own."""
        body = {"access": access, "port": port}
        answer = await self._transport.call("POST", self._path, body=body, key=idempotency_key)
        return wire.shape(shapes.DevUrls, answer.data)

    async def forget(self, port: int | None = None) -> shapes.DevUrls:
        """Take the choice about a port back and end all links to it; without a port: all of the sandbox."""
        path = self._path if port is None else f"{self._path}/{port}"
        return wire.shape(shapes.DevUrls, (await self._transport.call("DELETE", path)).data)

    async def link(
        self,
        port: int,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        *,
        idempotency_key: str | None = None,
    ) -> shapes.DevUrlLink:
        """An address that opens as it stands, for a while, and no longer than its maker may enter."""
        answer = await self._transport.call(
            "POST",
            f"{self._path}/{port}/links",
            body={"ttlSeconds": ttl_seconds},
            key=idempotency_key,
        )
        return wire.shape(shapes.DevUrlLink, answer.data)

    async def end_links(self, port: int) -> shapes.DevUrl:
        """End all links to a port, and what browsers have of them, within seconds."""
        answer = await self._transport.call("DELETE", f"{self._path}/{port}/links")
        return wire.shape(shapes.DevUrl, answer.data)


class AsyncSandboxHttp:
    """Speaks HTTP to what listens on a port of a sandbox: ``with sb.http(3000) as http:``.

    It finds its way where ``*.localhost`` does not resolve, and shows a link of its own, never the API key.
    """

    def __init__(self, urls: AsyncDevUrls, port: int, api_url: str) -> None:
        self._urls = urls
        self._port = port
        self._api_host = urlsplit(api_url).hostname or "127.0.0.1"
        self._url = ""
        self._token = ""
        self._until = datetime.now(UTC)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(), keepalive_expiry=4.0
        )

    async def request(
        self,
        method: str,
        path: str = "/",
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str = b"",
        seconds: float = _HTTP_SECONDS,
    ) -> HttpAnswer:
        """One request and its whole answer, whatever its status.

        Raises:
            GuestUnreachable: no answer came.
        """
        is_new = await self._prepare()
        answer = await self._ask(method, path, headers, content, seconds)
        is_refused = answer.status == _NOT_FOUND and _REFUSED in answer.headers
        if is_refused and not is_new:  # the link was ended; the server was not asked
            self._token = ""
            await self._prepare()
            answer = await self._ask(method, path, headers, content, seconds)
        return answer

    async def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        content: bytes | str,
        seconds: float,
    ) -> HttpAnswer:
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        at = self._api_host if host.endswith(".localhost") else host
        body = content.encode() if isinstance(content, str) else content
        sent = [("Host", parts.netloc), (_HEADER, self._token)]
        sent += [(name, text) for name, text in (headers or {}).items()]
        if body or method in _WITH_BODY:
            sent.append(("Content-Length", str(len(body))))
        target = httpcore.URL(
            scheme=parts.scheme.encode(),
            host=at.encode(),
            port=parts.port,
            target=(path if path.startswith("/") else f"/{path}").encode(),
        )
        times = {"connect": 5.0, "read": seconds, "write": seconds, "pool": seconds}
        extensions = {"timeout": times, "sni_hostname": host}
        try:
            answer = await self._pool.request(
                method, target, headers=_merged(sent), content=body or None, extensions=extensions
            )
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as exc:
            if _is_unresolved(exc):
                raise GuestUnreachable(
                    f"{method} {path[:200]}: the name {at} does not resolve here",
                    hint=f"*.{host.partition('.')[2]} must lead to the gateway: have the DNS say so, "
                    "or this machine's /etc/hosts for this one name",
                ) from exc
            raise GuestUnreachable(
                f"{method} {path[:200]} at {parts.netloc} got no answer: {exc!r}",
                hint="does the gateway answer there? `runtools status`, and the setting dev_url",
            ) from exc
        named = {
            name.decode("latin-1").lower(): text.decode("latin-1") for name, text in answer.headers
        }
        return HttpAnswer(status=answer.status, headers=named, content=answer.content)

    async def get(self, path: str = "/", *, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """GET."""
        return await self.request("GET", path, headers=headers)

    async def post(
        self,
        path: str = "/",
        content: bytes | str = b"",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        """POST."""
        return await self.request("POST", path, headers=headers, content=content)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def __aenter__(self) -> AsyncSandboxHttp:
        """Nothing is opened before it is needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def _prepare(self) -> bool:
        """Have a link that lasts; whether it is a new one."""
        if self._token and self._until - datetime.now(UTC) > _RENEWED_BEFORE:
            return False
        link = await self._urls.link(self._port)
        parts = urlsplit(link.url)
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._token = parse_qs(parts.query)[_PARAMETER][0]
        self._until = link.expires_at
        return True


def _is_unresolved(exc: BaseException) -> bool:
    """Whether it was for want of an address."""
    under: BaseException | None = exc
    while under is not None and not isinstance(under, socket.gaierror):
        under = under.__cause__ or under.__context__
    return under is not None


def _merged(fields: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Cookies are one field."""
    cookies = [text for name, text in fields if name.lower() == "cookie"]
    rest = [(name, text) for name, text in fields if name.lower() != "cookie"]
    rest.append(("Cookie", "; ".join(cookies)))
    return [(name.encode(), text.encode()) for name, text in rest]
