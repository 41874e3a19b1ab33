"""A worker's connection, from its request to its end: the worker port over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Annotated, Any

from fastapi import APIRouter, WebSocket
from pydantic import Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect

from runtools.errors import InvalidRequest, RunToolsError
from runtools.platform.api.calls import call_of
from runtools.platform.api.platform import Platform
from runtools.platform.api.runs import look
from runtools.platform.api.runs.look import Written
from runtools.platform.api.runs.telling import QUEUE
from runtools.platform.api.workers import dispatch, places, service, taking
from runtools.platform.api.workers.links import Link
from runtools.platform.core.ports.worker import (
    PATH,
    Append,
    Delta,
    Hello,
    Here,
    Place,
    Read,
    ReadEarlier,
    Release,
    Secret,
    Take,
)
from runtools.platform.kit import http, websocket
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.events import ErrorBody

log = logging.getLogger(__name__)
router = APIRouter()

Frame = Hello | Take | Append | Read | ReadEarlier | Place | Secret | Release | Here | Delta
_FRAME: TypeAdapter[Frame] = TypeAdapter(Annotated[Frame, Field(discriminator="call")])
_HELLO_SECONDS = 10.0
_ENDS = frozenset({1000, 1001})


@router.websocket(PATH)
async def link(sock: WebSocket) -> None:
    """Serve one worker."""
    platform = call_of(sock).platform
    await sock.accept()
    try:
        async with asyncio.timeout(_HELLO_SECONDS):
            number, hello = _parsed(await sock.receive_text())
        if not isinstance(hello, Hello):
            raise InvalidRequest("the first frame of a worker is its hello")
        await _Connection(platform, sock, hello).serve(number)
    except TimeoutError:
        await sock.close(4408, "no hello came")
    except RunToolsError as error:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await websocket.fail(sock, error)
    except WebSocketDisconnect:
        return


class _Connection:
    def __init__(self, platform: Platform, sock: WebSocket, hello: Hello) -> None:
        self._platform = platform
        self._sock = sock
        self._hello = hello
        self._link = Link(hello.worker_id, hello.slots, platform.clock.monotonic())
        self._doing: set[asyncio.Task[None]] = set()

    async def serve(self, number: int) -> None:
        """From the hello to the end."""
        platform, link_ = self._platform, self._link
        await dispatch.arrived(platform, self._hello)
        platform.workers.add(link_)
        link_.answer(number, None)
        platform.bus.signal(QUEUE)
        writer = asyncio.create_task(self._write())
        try:
            await self._listen()
        except WebSocketDisconnect as gone:
            if gone.code in _ENDS and platform.workers.is_latest(link_):
                platform.spawn(dispatch.left(platform, link_.worker_id), "a worker has ended")
        finally:
            platform.workers.remove(link_)
            for task in (writer, *self._doing):
                task.cancel()
            await asyncio.wait((writer, *self._doing))

    async def _write(self) -> None:
        while True:
            frame = await self._link.out()
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self._sock.send_text(frame)

    async def _listen(self) -> None:
        while True:
            number, frame = _parsed(await self._sock.receive_text())
            self._link.spoke = self._platform.clock.monotonic()
            if isinstance(frame, Here):
                continue
            if isinstance(frame, Delta):
                self._piece(frame)
                continue
            if not self._platform.workers.is_latest(self._link):
                raise InvalidRequest("this worker has connected anew")
            task = asyncio.create_task(self._answer(number, frame))
            self._doing.add(task)
            task.add_done_callback(self._doing.discard)

    def _piece(self, frame: Delta) -> None:
        """Hand a live piece on to whoever reads; what has not its form is dropped."""
        readers = self._platform.readers
        if self._link.driving.get(frame.run_id) != frame.lease or not readers.reads(frame.run_id):
            return
        try:
            data = look.payload(frame.type, frame.data)
        except ValidationError:
            log.warning("worker %s sent a malformed %s", self._link.worker_id, frame.type)
            return
        written = look.delta(frame.type, frame.run_id, self._platform.clock.now(), data)
        readers.piece(frame.run_id, written)

    async def _answer(self, number: int, frame: Frame) -> None:
        try:
            self._link.answer(number, await self._do(frame))
        except RunToolsError as error:
            self._link.answer(number, None, ErrorBody.model_validate(error.to_wire()))
        except Exception:
            # The edge of one call: the connection and the other runs go on.
            log.exception("a %s of worker %s failed", frame.call, self._link.worker_id)
            unknown = RunToolsError("the platform failed to do it", hint="its log has the details")
            self._link.answer(number, None, ErrorBody.model_validate(unknown.to_wire()))

    async def _do(self, frame: Frame) -> Shape | Written | None:
        platform, me = self._platform, self._link.worker_id
        if isinstance(frame, Take):
            return await self._give(frame)
        if isinstance(frame, Append):
            news, record = await service.append(platform, me, frame)
            if record.last_seq and frame.run_id in self._link.driving:
                self._heard(frame.run_id, news.upto)
            return news
        if isinstance(frame, Read):
            news, record = await service.read(platform, me, frame)
            self._heard(frame.run_id, news.upto if news.more else record.last_seq)
            return news
        if isinstance(frame, ReadEarlier):
            return await service.read_earlier(platform, me, frame)
        if isinstance(frame, Place):
            return await places.place(platform, me, frame)
        if isinstance(frame, Secret):
            return await service.secret(platform, me, frame)
        if isinstance(frame, Release):
            await service.release(platform, me, frame)
            return None
        raise InvalidRequest(f"a worker says {frame.call} once")

    async def _give(self, frame: Take) -> Shape:
        self._link.taking.add(frame.run_id)
        try:
            given = await taking.take(self._platform, self._link.worker_id, frame)
            self._link.drives(frame.run_id, frame.lease, given.run.last_seq)
        finally:
            self._link.taking.discard(frame.run_id)
        return given

    def _heard(self, run_id: str, seq: int | None) -> None:
        if seq is not None and run_id in self._link.heard:
            self._link.heard[run_id] = max(self._link.heard[run_id], seq)


def _parsed(text: str) -> tuple[int, Frame]:
    """A frame and its number.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        raw: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("a frame is no JSON") from None
    number = raw.pop("id", 0) if isinstance(raw, dict) else 0
    if not isinstance(number, int):
        raise InvalidRequest("the id of a frame is a number")
    try:
        return number, _FRAME.validate_python(raw)
    except ValidationError as exc:
        raise http.invalid(exc.errors(include_url=False, include_input=False)) from None
