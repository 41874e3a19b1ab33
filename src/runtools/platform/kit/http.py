"""HTTP without product words: the envelope, errors, cursors, bodies with bounds, streams.

A successful response is ``{"data": …, "meta": {"requestId": …}}``, a failed one ``{"error": {…}}``.
`reply` puts the envelope around bytes that a pydantic shape has written, so nothing is validated or
encoded twice.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from runtools.errors import InvalidRequest, RunToolsError, TooLarge

MAX_JSON_BYTES = 10 * 1024 * 1024
DRAINED_BYTES = 64 * 1024 * 1024
DRAINED_SECONDS = 10.0
JSON = "application/json"

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,64}")
_MAX_FIELDS = 20

MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ModelT = TypeVar("ModelT", bound=BaseModel)
ItemT = TypeVar("ItemT")


def request_id(scope: Scope) -> str:
    """The caller's ``X-Request-Id`` where it is one, else a fresh id."""
    given = header(scope, b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"req_{secrets.token_hex(10)}"


def peer(scope: Scope, proxies: Sequence[IPv4Network | IPv6Network] = ()) -> str:
    """The address of who asks: who is connected, or whom proxies that we trust say that they ask for.

    A proxy adds its own client at the end of ``X-Forwarded-For``; what stands before that was sent by the
    client and is believed only as far as that client is such a proxy too.
    """
    client = scope.get("client")
    found = str(client[0]) if client else "-"
    if not proxies:
        return found
    named = b",".join(value for key, value in scope["headers"] if key == b"x-forwarded-for")
    for word in reversed(named.decode("latin-1").split(",")):
        if not is_in(found, proxies) or not (further := _address(word)):
            break
        found = further
    return found


def is_in(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether an address is in one of the networks."""
    known = _address(address)
    return known != "" and any(ip_address(known) in network for network in networks)


def _address(text: str) -> str:
    """An address as it is kept; empty: that is none."""
    try:
        found = ip_address(text.strip())
    except ValueError:
        return ""
    inner = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(inner or found).partition("%")[0]


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def bearer(scope: Scope) -> str | None:
    """The token in ``Authorization: Bearer …``."""
    given = header(scope, b"authorization")
    if given is None:
        return None
    scheme, _, secret = given.partition(b" ")
    return secret.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


# --- responses ---


def reply(
    request: str,
    data: bytes,
    *,
    status: int = 200,
    next_cursor: str | None = None,
    paged: bool = False,
    headers: Mapping[str, str] | None = None,
    trace: str | None = None,
) -> Response:
    """The envelope around data that is JSON already."""
    meta: dict[str, Any] = {"requestId": request}
    if trace is not None:
        meta["traceId"] = trace
    if paged:
        meta |= {"hasMore": next_cursor is not None, "nextCursor": next_cursor}
    body = b'{"data":%b,"meta":%b}' % (data, json.dumps(meta, separators=(",", ":")).encode())
    return Response(body, status, dict(headers or {}), JSON)


def many(items: Sequence[BaseModel]) -> bytes:
    """A JSON list of shapes."""
    return b"[%b]" % b",".join(one(item) for item in items)


def one(item: BaseModel) -> bytes:
    """A shape as JSON, with the names of the wire."""
    return item.__pydantic_serializer__.to_json(item, by_alias=True)


def texts(lines: Sequence[str]) -> bytes:
    """A JSON list of strings; what is not Unicode text in them is replaced."""
    clean = [line.encode("utf-8", "replace").decode() for line in lines]
    return json.dumps(clean, ensure_ascii=False, separators=(",", ":")).encode()


def failure(error: RunToolsError, request: str, trace: str | None = None) -> Response:
    """The response that an error is."""
    body = error.to_wire() | {"requestId": request}
    if trace is not None:
        body["traceId"] = trace
    headers = {"Connection": "close"} if isinstance(error, TooLarge) else {}
    if (after := error.details.get("retryAfterSeconds")) is not None:
        headers["Retry-After"] = str(after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    content = json.dumps({"error": body}, separators=(",", ":"), default=str).encode()
    return Response(content, error.status, headers, JSON)


# --- bodies ---


async def read_body(
    scope: Scope,
    receive: Receive,
    limit: int = MAX_JSON_BYTES,
    hint: str = "files are uploaded as a stream: PUT /v1/sandboxes/{ref}/files",
) -> bytes:
    """The whole body, never more than the limit of it in memory; ``hint``: for who sends more.

    A caller that sends too much reads its answer only when it has sent all, so some more is taken from
    it and thrown away. The answer must close the connection: there may be more.

    Raises:
        TooLarge: it is longer.
        ClientDisconnect: the caller went away.
    """
    too_large = TooLarge(
        f"the body is larger than {limit} bytes",
        hint=hint,
        details={"limitBytes": limit},
    )
    stated = header(scope, b"content-length")
    if stated is not None and stated.isdigit() and int(stated[:20]) > limit:
        await _drain(receive)
        raise too_large
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            await _drain(receive)
            raise too_large
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _drain(receive: Receive) -> None:
    left = DRAINED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAINED_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out a body already read, then goes on with the real one."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def parse(model: type[ModelT], body: bytes) -> ModelT:
    """The body as that shape.

    Raises:
        InvalidRequest: it is not JSON, or fields are missing, unknown or wrong; all are named.
    """
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as exc:
        raise invalid(exc.errors(include_url=False, include_input=False)) from None


def invalid(errors: Sequence[Mapping[str, Any]]) -> InvalidRequest:
    """Validation errors as one of ours; what the caller sent is not repeated (it may be secret)."""
    fields = [
        {"field": _path(error["loc"]), "problem": str(error["msg"]), "type": str(error["type"])}
        for error in errors[:_MAX_FIELDS]
    ]
    first = fields[0]
    what = f"{first['field']}: {first['problem']}" if first["field"] else first["problem"]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidRequest(f"{what}{more}", details={"fields": fields})


def wrong_field(field: str, problem: str, *, hint: str | None = None) -> InvalidRequest:
    """One field is wrong for a reason that a type does not say."""
    listed = [{"field": field, "problem": problem, "type": "value_error"}]
    return InvalidRequest(f"{field}: {problem}", hint=hint, details={"fields": listed})


def _path(loc: Sequence[object]) -> str:
    return ".".join(str(word)[:80] for word in loc)


# --- cursors ---


def cursor(*position: str | int) -> str:
    """An opaque place in a list."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def position(text: str, *kinds: type[str] | type[int]) -> tuple[Any, ...]:
    """What `cursor` was given.

    Raises:
        InvalidRequest: the text is no cursor of this list.
    """
    wrong = wrong_field("cursor", "not a cursor of this list", hint="use meta.nextCursor as it is")
    if len(text) > 1000:
        raise wrong
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        values = TypeAdapter(list[str | int]).validate_json(raw)
    except (ValidationError, binascii.Error, ValueError) as exc:
        raise wrong from exc
    if [type(value) for value in values] != list(kinds):
        raise wrong
    if any("\0" in v if isinstance(v, str) else abs(v) >= 2**63 for v in values):
        raise wrong
    return tuple(values)


# --- streams ---


class Stream(Response):
    """Bytes from an iterator, at the pace of the reader; closed at once when the caller goes away.

    When the iterator fails half-way, or gives less than the stated length, the connection is cut: a
    part is never passed off as the whole.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.chunks = chunks
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then every chunk."""
        await until_disconnect(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            async for chunk in self.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await close(self.chunks)


async def close(items: AsyncIterator[object]) -> None:
    """Let an iterator let go of what it holds, also when it was never begun."""
    if isinstance(items, AsyncGenerator):
        await items.aclose()


async def primed(items: AsyncIterator[ItemT]) -> AsyncIterator[ItemT]:
    """The same items, the first one read already: an error before it can still be answered."""
    first: list[ItemT] = []
    with contextlib.suppress(StopAsyncIteration):
        first.append(await anext(items))

    async def all_of_them() -> AsyncGenerator[ItemT, None]:
        try:
            for item in first:
                yield item
            async for item in items:
                yield item
        finally:
            await close(items)

    return all_of_them()


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Await the work, but give it up when the caller goes away."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(until_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait((task, gone))
    if not task.cancelled():
        task.result()


async def until_gone(receive: Receive) -> None:
    """Return when the caller has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
