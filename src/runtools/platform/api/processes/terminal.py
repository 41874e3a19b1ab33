"""A viewer of a process over a WebSocket: its output as bytes, keys and sizes the other way.

    server   text    {"type": "start", "offset", "dropped", "process"}    the first message;
                                     no process where the sandbox was paused before it could tell of it
             binary  bytes of output, without a hole from ``offset`` on
             text    {"type": "dropped", "offset", "bytes"}     so many before the offset are gone
             text    {"type": "taken", "message"}               that message of the viewer was done
             text    {"type": "refused", "message", "error", "bytes"}    … was not, and will not be, but for
                                                                so many bytes at the beginning of input
             text    {"type": "end", "offset", "process"}       all was given; closes with 1000
             text    {"type": "error", "error"}                 closes with 4000 + the HTTP status
    viewer   binary  input
             text    {"type": "resize", "rows", "columns"}, {"type": "signal", "signal"},
                     {"type": "close-input"}

The messages of a viewer are numbered as they come. One whose connection broke does not know which were
done: it comes back with ``?viewer`` (a name that it chose) and ``?message`` (the first number that was not
answered), sends again from there, and what was done already is not done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from runtools.errors import InputFull, RunToolsError, Unauthenticated, Unavailable
from runtools.platform.api.audit import store as audit
from runtools.platform.api.audit.lines import line_of
from runtools.platform.api.callers.door import BELIEVED_SECONDS
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.processes import service
from runtools.platform.api.processes.service import Place
from runtools.platform.api.sandboxes import inside
from runtools.platform.core.ports.host import Host
from runtools.platform.kit import http, websocket
from runtools.platform.kit.crypto import keyed_digest
from runtools.platform.kit.websocket import say
from runtools.sdk.shapes.base import Request
from runtools.sdk.shapes.processes import (
    HISTORY_PATTERN,
    MAX_INPUT_BYTES,
    TERMINAL_PROTOCOL,
    OutputEnd,
    SignalRequest,
    TerminalSize,
)

_OPENED = 101
_WAITING_MESSAGES = 16
_FULL_SECONDS = 10.0  # how long input waits for a process that does not read
_LEFT_SECONDS = 15.0  # how long the messages of a viewer who is gone are still worked on
_FULL_PAUSES = (0.02, 0.25)


class Asked(Request):
    """The query of a terminal's address."""

    offset: int = Field(0, ge=0, le=2**62)
    history: str | None = Field(None, pattern=HISTORY_PATTERN)
    viewer: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{8,64}$")
    message: int = Field(0, ge=0, le=2**62)


class Resize(TerminalSize):
    """Another size."""

    type: Literal["resize"]


class Signal(SignalRequest):
    """A signal."""

    type: Literal["signal"]


class CloseInput(Request):
    """The end of input."""

    type: Literal["close-input"]


_CONTROL: TypeAdapter[Resize | Signal | CloseInput] = TypeAdapter(
    Annotated[Resize | Signal | CloseInput, Field(discriminator="type")]
)


async def serve(sock: WebSocket, ref: str, process_id: str) -> None:
    """Serve one viewer from its request to its end."""
    call = call_of(sock)
    asked = _asked(sock)
    place = await service.begin(call, ref, process_id, "output", asked.offset, asked.history)
    start = place.start
    call.subject = f"{place.record.id}/{place.process_id}"
    line = line_of(call, sock.scope, _OPENED)
    await call.platform.db.write(audit.add, [line])
    spoken = TERMINAL_PROTOCOL if TERMINAL_PROTOCOL in sock.scope["subprotocols"] else None
    await sock.accept(spoken)
    viewer = _Viewer(call, sock, place, asked)
    try:
        shown = None if place.process is None else json.loads(http.one(place.process))
        await say(sock, type="start", offset=start, dropped=start - asked.offset, process=shown)
        await _first_of(viewer.show(start), viewer.listen(), viewer.work(), viewer.watch())
    except RunToolsError as error:
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.fail(sock, error)
    except WebSocketDisconnect:
        with contextlib.suppress(RunToolsError):  # there is nobody to be told
            await _first_of(viewer.finish(), viewer.watch())


def _asked(sock: WebSocket) -> Asked:
    try:
        return Asked.model_validate(dict(sock.query_params))
    except ValidationError as exc:
        raise http.invalid(exc.errors(include_url=False, include_input=False)) from None


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Do all of it until one is done, or fails: the others end with it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


class _Viewer:
    def __init__(self, call: Call, sock: WebSocket, place: Place, asked: Asked) -> None:
        self._call = call
        self._sock = sock
        self._place = place
        self._sandbox = place.record.id
        self._process = place.process_id
        self._name = asked.viewer or call.request_id
        self._number = asked.message
        self._coming: asyncio.Queue[bytes | str] = asyncio.Queue(_WAITING_MESSAGES)
        self._at_hand: bytes | str | None = None  # is being done
        self._waits: bytes | str | None = None  # came, and there is no room for it yet
        self._left = False  # all has come that ever will
        self._reads = True
        self._given = 0  # bytes of the message at hand

    async def show(self, start: int) -> None:
        """Send output as it comes, at the pace of the viewer, and how it ended."""
        sock = self._sock
        items = service.follow(self._call, self._place, "output", start)
        async with contextlib.aclosing(items):
            async for item in items:
                if isinstance(item, OutputEnd):
                    ended = json.loads(http.one(item.process))
                    await say(sock, type="end", offset=item.offset, process=ended)
                    await sock.close(1000)
                    return
                for piece in (part.piece for part in item):
                    if piece.dropped:
                        await say(sock, type="dropped", offset=piece.offset, bytes=piece.dropped)
                    await sock.send_bytes(piece.data)
        raise _not_any_more()

    async def watch(self) -> None:
        """See that who opened it still may, whatever the rest of it waits for.

        Raises:
            Unauthenticated: it may no more.
        """
        while True:
            await self._may()
            await self._call.platform.clock.sleep(BELIEVED_SECONDS)

    async def _may(self) -> None:
        if not await self._call.platform.door.still_good(self._call.who):
            raise _not_any_more()

    async def listen(self) -> None:
        """Take messages as they come; beyond a few that wait, none is taken from the viewer."""
        while True:
            self._waits = await self._receive()
            await self._coming.put(self._waits)
            self._waits = None

    async def _receive(self) -> bytes | str:
        message = await self._sock.receive()
        if message["type"] == "websocket.disconnect":
            self._left = True
            raise WebSocketDisconnect(message.get("code", 1005))
        data: bytes | None = message.get("bytes")
        return str(message["text"]) if data is None else data

    async def work(self) -> None:
        """Do what the messages say, one after the other."""
        while True:
            self._at_hand = await self._coming.get()
            self._given = 0
            try:
                await self._do(self._at_hand)
            except (Unauthenticated, Unavailable):
                raise  # not done, or not known to be: it comes again by another connection
            except RunToolsError as error:
                await say(
                    self._sock,
                    type="refused",
                    message=self._number,
                    error=error.to_wire(),
                    bytes=self._given,
                )
            else:
                await say(self._sock, type="taken", message=self._number)
            self._at_hand = None
            self._number += 1

    async def finish(self) -> None:
        """Do what the viewer had sent before it left: who types a line and leaves has typed it.

        What was at hand is done under the same id, so not twice; so is what the viewer sends again by
        another connection meanwhile.
        """
        with contextlib.suppress(TimeoutError, WebSocketDisconnect):
            async with asyncio.timeout(_LEFT_SECONDS):
                message = self._at_hand
                while message is not None or (message := await self._next()) is not None:
                    try:
                        await self._do(message)
                    except (Unauthenticated, Unavailable):
                        return
                    except RunToolsError:
                        pass  # there is nobody to be told
                    self._number += 1
                    message = None

    async def _next(self) -> bytes | str | None:
        """The next message of one who has left."""
        if not self._coming.empty():
            return self._coming.get_nowait()
        if self._waits is not None:
            message, self._waits = self._waits, None
            return message
        return None if self._left else await self._receive()

    async def _do(self, message: bytes | str) -> None:
        sandbox, process = self._sandbox, self._process
        if isinstance(message, bytes):
            for n in range(0, len(message), MAX_INPUT_BYTES):
                piece = message[n : n + MAX_INPUT_BYTES]
                await self._send(piece, self._op(n))
                self._given += len(piece)
            return
        control = _control(message)
        if isinstance(control, Resize):
            size = TerminalSize(rows=control.rows, columns=control.columns)
            host = await self._enter()
            await host.resize_terminal(sandbox, process, self._op(), size)
        elif isinstance(control, Signal):
            host = await self._enter()
            await host.signal_process(sandbox, process, self._op(), control.signal)
        else:
            host = await self._enter()
            await host.close_input(sandbox, process, self._op())

    async def _enter(self) -> Host:
        """The host of the sandbox; one that sleeps is woken, if its org may run it.

        Asked anew for every act: since the last one the sandbox may have been paused, and the key revoked.
        """
        await self._may()
        host, _ = await inside.enter(self._call, self._sandbox)
        return host

    async def _send(self, data: bytes, op: str) -> None:
        """Give input to a process, which may take its time to read it."""
        clock = self._call.platform.clock
        until = clock.monotonic() + (_FULL_SECONDS if self._reads else 0)
        pause, longest = _FULL_PAUSES
        while True:
            try:
                host = await self._enter()
                await host.send_input(self._sandbox, self._process, op, data)
            except InputFull:
                self._reads = clock.monotonic() < until
                if not self._reads:
                    raise
            else:
                self._reads = True
                return
            await clock.sleep(pause)
            pause = min(pause * 2, longest)

    def _op(self, part: int = 0) -> str:
        names = (self._call.org, self._sandbox, self._process, f"{self._number}.{part}")
        digest = keyed_digest(self._name, *(name.encode() for name in names))
        return f"opn_{digest[:32]}"


def _not_any_more() -> Unauthenticated:
    return Unauthenticated(
        "the key or session that opened the terminal is good no longer, or its rights are others",
        hint="the process goes on; open it anew with one that is good",
    )


def _control(text: str) -> Resize | Signal | CloseInput:
    try:
        return _CONTROL.validate_json(text)
    except ValidationError as exc:
        raise http.invalid(exc.errors(include_url=False, include_input=False)) from None
