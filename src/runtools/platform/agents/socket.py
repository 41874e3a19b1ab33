"""The link as it is between two processes: one WebSocket, frames of JSON, answers by their ids."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import websockets
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect

from runtools.errors import Conflict, TooLarge, Unavailable, from_wire
from runtools.platform.agents.link import LinkLost
from runtools.platform.core.ports.worker import (
    BEAT_SECONDS,
    MAX_FRAME_BYTES,
    PATH,
    Append,
    Assignment,
    Delta,
    Earlier,
    Hello,
    Here,
    NewEvent,
    News,
    Offer,
    Place,
    Placed,
    Poke,
    Read,
    ReadEarlier,
    Release,
    Secret,
    Take,
    Value,
)
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.runs import DeltaType

_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)

Told = Offer | Poke
OnTold = Callable[[Told], None]

_TOLD: Mapping[str, type[Told]] = {"offer": Offer, "poke": Poke}
_NEWS, _ASSIGNMENT = TypeAdapter(News), TypeAdapter(Assignment)
_OPEN_SECONDS = 10.0
_PING_SECONDS, _SILENT_SECONDS = 3.0, 6.0
_ANSWER_SECONDS = 60.0
_PLACE_SECONDS = 600.0
LIVE_CHARACTERS = 512 * 1024
"""Of live pieces that wait to be sent: more is not kept, as readers are given no more either."""
_OF_A_PIECE = 16 * 1024


@asynccontextmanager
async def linked(url: str, token: str, hello: Hello, on_told: OnTold) -> AsyncIterator[SocketLink]:
    """A link that holds until the block ends or the connection does (`SocketLink.lost`).

    Args:
        url: of the api, as ``http://127.0.0.1:7700``.
        on_told: called with what the api says by itself.

    Raises:
        LinkLost: there is no connection.
        RunToolsError: the api does not want this worker.
    """
    address = f"ws{url.removeprefix('http')}{PATH}"
    try:
        async with connect(
            address,
            additional_headers={"Authorization": f"Bearer {token}"},
            max_size=MAX_FRAME_BYTES,
            compression=None,
            proxy=None,
            open_timeout=_OPEN_SECONDS,
            ping_interval=_PING_SECONDS,
            ping_timeout=_SILENT_SECONDS,
            close_timeout=1.0,
        ) as socket:
            link = SocketLink(socket, on_told)
            try:
                await link.call(hello)
                yield link
            finally:
                await link.close()
    except websockets.InvalidStatus as exc:
        raise Unavailable(f"the api refuses the worker: {exc}") from exc
    except (OSError, TimeoutError, websockets.WebSocketException) as exc:
        raise LinkLost(f"{url}: {exc}") from exc


class SocketLink:
    """One connection."""

    def __init__(self, socket: ClientConnection, on_told: OnTold) -> None:
        self._socket = socket
        self._on_told = on_told
        self._last = 0
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._out: deque[str | Delta] = deque()
        self._waiting = 0  # characters of live pieces in it
        self._more = asyncio.Event()
        self.lost = asyncio.Event()
        self._tasks = [
            asyncio.create_task(each) for each in (self._send(), self._hear(), self._beat())
        ]

    async def call(self, frame: Shape, seconds: float = _ANSWER_SECONDS) -> Any:
        """Say something and wait for its answer."""
        if self.lost.is_set():
            raise LinkLost("the connection to the api is gone")
        self._last += 1
        number = self._last
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # The id goes in front of what the shape says already: a large frame is written once.
        text = f'{{"id":{number},' + frame.model_dump_json()[1:]
        _check_size(text)
        self._asked[number] = answer
        self._put(text)
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            self._end()  # what this worker has is offered to another, or to this one again
            raise LinkLost(f"the api did not answer within {seconds:.0f} s") from None
        finally:
            self._asked.pop(number, None)

    async def take(self, run_id: str, lease: int) -> Assignment:
        """Take a run that was offered."""
        return _ASSIGNMENT.validate_python(await self._of_run(Take(run_id=run_id, lease=lease)))

    async def append(
        self,
        run_id: str,
        lease: int,
        events: Sequence[NewEvent],
        *,
        seen: int | None = None,
        wait: bool = False,
        left: Sequence[str] = (),
    ) -> News:
        """Append events in one transaction."""
        frame = Append(
            run_id=run_id, lease=lease, events=list(events), seen=seen, wait=wait, left=list(left)
        )
        return _NEWS.validate_python(await self._of_run(frame))

    async def read(self, run_id: str, lease: int, after: int) -> News:
        """The log after a number."""
        return _NEWS.validate_python(
            await self._of_run(Read(run_id=run_id, lease=lease, after=after))
        )

    async def earlier(self, run_id: str, lease: int, after_run: str, after: int) -> Earlier:
        """What was said before."""
        frame = ReadEarlier(run_id=run_id, lease=lease, after_run=after_run, after=after)
        return Earlier.model_validate(await self._of_run(frame))

    async def place(self, run_id: str, lease: int) -> Placed:
        """The run's sandbox."""
        answer = await self.call(Place(run_id=run_id, lease=lease), _PLACE_SECONDS)
        return Placed.model_validate(answer)

    async def secret(self, run_id: str, lease: int, name: str, server: str | None = None) -> str:
        """A secret of the run."""
        answer = await self.call(Secret(run_id=run_id, lease=lease, name=name, server=server))
        return Value.model_validate(answer).value

    async def release(self, run_id: str, lease: int, *, ending: bool = False) -> None:
        """Give a run back."""
        await self._tried(Release(run_id=run_id, lease=lease, ending=ending))

    def delta(self, run_id: str, lease: int, kind: DeltaType, data: Mapping[str, Any]) -> None:
        """A live piece; those that wait for a slow connection are joined, and the oldest go."""
        if self.lost.is_set():
            return
        piece = Delta(run_id=run_id, lease=lease, type=kind, data=dict(data))
        last = self._out[-1] if self._out else None
        if isinstance(last, Delta) and _goes_on(last, piece):
            text = last.data["text"] + piece.data["text"]
            self._out[-1] = last.model_copy(update={"data": {**last.data, "text": text}})
        else:
            self._put(piece)
        self._waiting += len(piece.data["text"])
        while self._waiting > LIVE_CHARACTERS:
            oldest = next(one for one in self._out if isinstance(one, Delta))
            self._out.remove(oldest)
            self._waiting -= len(oldest.data["text"])

    async def close(self) -> None:
        """End the connection."""
        self._end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _of_run(self, frame: Shape) -> Any:
        try:
            return await self._tried(frame)
        except Unavailable as error:
            # That run is left: the connection is well, and others may fare better.
            raise LinkLost(error.message) from error

    async def _tried(self, frame: Shape) -> Any:
        for pause in _PAUSES:
            try:
                return await self._once(frame)
            except Unavailable:
                # Every frame may be said again: what stands there is the answer.
                await asyncio.sleep(pause)
        return await self._once(frame)

    async def _once(self, frame: Shape) -> Any:
        try:
            return await self.call(frame)
        except Conflict as error:
            raise LinkLost(error.message) from error

    def _put(self, frame: str | Delta) -> None:
        self._out.append(frame)
        self._more.set()

    async def _send(self) -> None:
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._out:
                    frame = self._out.popleft()
                    if isinstance(frame, Delta):
                        self._waiting -= len(frame.data["text"])
                    text = frame if isinstance(frame, str) else frame.model_dump_json()
                    await self._socket.send(text)
        except websockets.ConnectionClosed:
            pass
        finally:
            self._end()  # whatever it was: a link that sends nothing is none

    async def _beat(self) -> None:
        """Say every second that there is somebody, unless something waits to be sent anyhow."""
        beat = Here().model_dump_json()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if not self._out:
                self._put(beat)

    async def _hear(self) -> None:
        try:
            async for text in self._socket:
                self._take(json.loads(text))
        except (websockets.ConnectionClosed, ValueError):
            pass
        finally:
            self._end()

    def _take(self, frame: dict[str, Any]) -> None:
        if "told" in frame:
            kind = _TOLD.get(frame["told"])
            if kind is not None:
                self._on_told(kind.model_validate(frame))
            return
        answer = self._asked.get(frame.get("id", -1))
        if answer is None or answer.done():
            return
        error = frame.get("error")
        if error is None:
            answer.set_result(frame.get("ok"))
        else:
            answer.set_exception(from_wire(error))

    def _end(self) -> None:
        self.lost.set()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(LinkLost("the connection to the api is gone"))


def _goes_on(last: Delta, piece: Delta) -> bool:
    """Whether the second is what the first would have said next, and there is room for it in one."""
    if (last.run_id, last.type) != (piece.run_id, piece.type):
        return False
    if len(last.data["text"]) + len(piece.data["text"]) > _OF_A_PIECE:
        return False
    expected = dict(last.data)
    if expected.get("offset") is not None:
        expected["offset"] += len(last.data["text"])
    return all(expected[name] == value for name, value in piece.data.items() if name != "text")


def _check_size(text: str) -> None:
    """Refuse what would cost all runs of this worker their connection.

    Raises:
        TooLarge: the api takes no such frame.
    """
    if len(text) > MAX_FRAME_BYTES // 4 and (size := len(text.encode())) > MAX_FRAME_BYTES:
        raise TooLarge(
            f"what is to be written down at once has {size} bytes; {MAX_FRAME_BYTES} is the most",
            hint="shorter answers of the model, and fewer calls in one, are kept",
            details={"limitBytes": MAX_FRAME_BYTES},
        )
