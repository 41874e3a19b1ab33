"""The host port over HTTP on a Unix socket, for the api part of the same machine.

The calls are the table in `core/ports/host_wire.py`. Who may speak here is a matter of the socket's
owner and mode alone. A caller that goes away ends streams; an act that was begun goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from runtools.errors import HostUnavailable, InvalidRequest, NotFound, RunToolsError, TooLarge
from runtools.platform.core.ports.host import Host
from runtools.platform.core.ports.host_wire import CALLS, PREFIX, Call, Gives
from runtools.platform.kit.tracing import OFF, Tracing

log = logging.getLogger(__name__)

_MAX_LINE = 64 * 1024 * 1024
_GRACE_SECONDS = 10
_JSON = (b"content-type", b"application/json")
_LINES = (b"content-type", b"application/x-ndjson")
_BYTES = (b"content-type", b"application/octet-stream")


class HostApp:
    """The ASGI application.

    Args:
        host: who answers.
        tracing: carries a caller's trace on.
    """

    def __init__(self, host: Host, tracing: Tracing = OFF) -> None:
        self._host = host
        self._tracing = tracing
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the streams that have no end of their own, so that a server can stop."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = _Exchange(receive, send)
        try:
            call = CALLS.get(scope["path"].removeprefix(PREFIX))
            if call is None:
                raise NotFound(f"the host has no call {scope['path']}")
            with self._tracing.under(_traceparent(scope)):
                await self._answer(call, exchange)
        except RunToolsError as exc:
            await exchange.refuse(exc)
        except (
            Exception
        ) as exc:  # the loop's edge: whatever it is, the caller is told and it is logged
            log.exception("%s failed", scope["path"])
            await exchange.refuse(RunToolsError(f"the host failed: {exc!r}"))

    async def _answer(self, call: Call, exchange: _Exchange) -> None:
        arguments = await self._arguments(call, exchange)
        method = getattr(self._host, call.name)
        if call.gives is Gives.ITEMS:
            farewell = call.pack_error(HostUnavailable("the host part is being stopped"))
            await self._stream(exchange, exchange.items(call, method(**arguments)), farewell)
            return
        result = await method(**arguments)
        if call.gives is Gives.VALUE:
            await exchange.value(call.result.dump_json(result))
        elif call.gives is Gives.BYTES:
            await self._stream(exchange, exchange.raw(b"", result))
        else:
            value, chunks = result
            head = call.result.dump_json(value) + b"\n"
            await self._stream(exchange, exchange.raw(head, chunks))

    async def _arguments(self, call: Call, exchange: _Exchange) -> dict[str, Any]:
        line = await exchange.line()
        try:
            arguments = call.unpack(line)
        except ValidationError as exc:
            raise InvalidRequest(f"{call.name} does not take this: {exc}") from exc
        if call.body is not None:
            arguments[call.body] = exchange.rest()
        return arguments

    async def _stream(
        self, exchange: _Exchange, sending: Coroutine[Any, Any, None], farewell: bytes | None = None
    ) -> None:
        """Send until it ends or the caller goes away; one with a farewell ends with us, too."""
        work = asyncio.ensure_future(sending)
        gone = asyncio.ensure_future(exchange.gone())
        closing = asyncio.ensure_future(self._closing.wait())
        ends = {work, gone, closing} if farewell else {work, gone}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                work.result()
        finally:
            for task in (work, gone, closing):
                task.cancel()
            await asyncio.wait({work, gone, closing})
        if farewell and closing in done and work not in done:
            await exchange.last(farewell)


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            found: bytes = value
            return found.decode("latin-1")
    return None


class _Exchange:
    """One request and its response, over ASGI."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._held = b""
        self._more = True
        self._started = False

    # --- what comes ---

    async def line(self) -> bytes:
        """The body up to its first newline, or all of it."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self._body():
            line, newline, rest = piece.partition(b"\n")
            pieces.append(line)
            size += len(line)
            if size > _MAX_LINE:
                raise TooLarge(f"the arguments of a call exceed {_MAX_LINE} bytes")
            if newline:
                self._held = rest
                break
        return b"".join(pieces)

    async def rest(self) -> AsyncIterator[bytes]:
        """The body after the line."""
        if self._held:
            yield self._held
        async for piece in self._body():
            yield piece

    async def gone(self) -> None:
        """Wait until the caller has gone away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _body(self) -> AsyncIterator[bytes]:
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest("the caller went away in the middle of its request")
            self._more = message.get("more_body", False)
            yield message.get("body", b"")

    # --- what goes ---

    async def value(self, body: bytes, status: int = 200) -> None:
        """A whole answer."""
        headers = [_JSON, (b"content-length", str(len(body)).encode())]
        if self._more:  # nobody will read what still comes
            headers.append((b"connection", b"close"))
        await self._start(status, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def items(self, call: Call, items: AsyncIterator[Any]) -> None:
        """A line for each; a failure is the last line."""
        await self._start(200, [_LINES])
        try:
            async with _closing(items):
                async for item in items:
                    await self._piece(call.pack_item(item))
        except RunToolsError as exc:
            await self._piece(call.pack_error(exc))
        await self.last(b"")

    async def last(self, piece: bytes) -> None:
        """The end of a stream."""
        await self._send({"type": "http.response.body", "body": piece})

    async def raw(self, head: bytes, chunks: AsyncIterator[bytes]) -> None:
        """A line, then bytes."""
        async with _closing(chunks):
            await self._start(200, [_BYTES])
            if head:
                await self._piece(head)
            async for chunk in chunks:
                await self._piece(chunk)
        await self.last(b"")

    async def refuse(self, exc: RunToolsError) -> None:
        """The error; where bytes were sent already, the answer is cut off instead."""
        if self._started:
            log.warning("cut an answer off: %s", exc)
        else:
            await self.value(json.dumps(exc.to_wire()).encode(), exc.status)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _piece(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})


@contextlib.asynccontextmanager
async def _closing(items: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close what is closable: the port promises an iterator, which generators are more than."""
    try:
        yield
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


class _Server(uvicorn.Server):
    """Leaves signals to its caller, and ends endless streams before it waits for the rest."""

    def __init__(self, config: uvicorn.Config, app: HostApp) -> None:
        super().__init__(config)
        self._app = app

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._app.close()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def serving(
    host: Host,
    path: Path,
    *,
    uid: int | None = None,
    gid: int | None = None,
    mode: int = 0o600,
    tracing: Tracing = OFF,
) -> AsyncIterator[None]:
    """Serve the host while the body runs, then finish what is under way.

    Args:
        host: who answers.
        path: the socket; one that is there from before is replaced.
        uid, gid, mode: who may connect; by default ourselves alone.
        tracing: carries callers' traces on.
    """
    app = HostApp(host, tracing)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config, app)
    with bound(path, uid=uid, gid=gid, mode=mode) as listening:
        serve = asyncio.create_task(server.serve([listening]))
        try:
            yield
        finally:
            server.should_exit = True
            await serve


@contextlib.contextmanager
def bound(path: Path, *, uid: int | None, gid: int | None, mode: int) -> Iterator[socket.socket]:
    """A listening Unix socket that at no moment was there for others than it is meant for."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(fresh))
        fresh.chmod(mode)
        if uid is not None or gid is not None:
            os.chown(fresh, -1 if uid is None else uid, -1 if gid is None else gid)
        listening.listen(1024)
        fresh.replace(path)
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)
