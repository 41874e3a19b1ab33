"""A worker for tests: it speaks the worker port, and drives runs as the test says."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from runtools.errors import Unavailable, from_wire
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
    Read,
    ReadEarlier,
    Release,
    Secret,
    Take,
    Value,
)
from runtools.sdk.shapes.base import Shape

S = TypeVar("S", bound=Shape)
T = TypeVar("T")

SECONDS = 60.0
"""How long it waits for whatever is to come."""
USED = {"inputTokens": 10, "outputTokens": 5, "requests": 1, "costUsd": "0.001", "total": {}}


@dataclass(frozen=True)
class Held:
    """A run that it drives, and under which lease."""

    run_id: str
    lease: int


class FakeWorker:
    """One connection of a worker.

    Attributes:
        offers: what it was offered and has not looked at.
        pokes: the runs that it was poked for.
    """

    def __init__(self, socket: ClientConnection, worker_id: str) -> None:
        self.worker_id = worker_id
        self.offers: asyncio.Queue[Offer] = asyncio.Queue()
        self.pokes: asyncio.Queue[str] = asyncio.Queue()
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())
        self._beating = asyncio.create_task(self._beat())

    async def offered(self) -> Offer:
        """The next run that it is offered.

        Raises:
            Unavailable: the connection is gone.
        """
        return await self._next(self.offers)

    async def poked(self) -> str:
        """The next run that it is poked for.

        Raises:
            Unavailable: the connection is gone.
        """
        return await self._next(self.pokes)

    async def hello(self, slots: int) -> None:
        """Say who it is."""
        await self.call(Hello(worker_id=self.worker_id, slots=slots))

    async def take(self, offer: Offer | None = None) -> Assignment:
        """Take a run: what it was offered, or the next."""
        offer = offer or await self.offered()
        said = await self.call(Take(run_id=offer.run_id, lease=offer.lease))
        return Assignment.model_validate(said)

    async def append(
        self,
        run: Held,
        *events: NewEvent,
        seen: int | None = None,
        wait: bool = False,
        left: Sequence[str] = (),
    ) -> News:
        """Append to the log of a run."""
        frame = Append(
            run_id=run.run_id,
            lease=run.lease,
            events=list(events),
            seen=seen,
            wait=wait,
            left=list(left),
        )
        return News.model_validate(await self.call(frame))

    async def read(self, run: Held, after: int) -> News:
        """What stands in the log of a run after a number."""
        frame = Read(run_id=run.run_id, lease=run.lease, after=after)
        return News.model_validate(await self.call(frame))

    async def earlier(self, run: Held, after_run: str, after: int) -> Earlier:
        """What was said before, after an event of an earlier run."""
        frame = ReadEarlier(run_id=run.run_id, lease=run.lease, after_run=after_run, after=after)
        return Earlier.model_validate(await self.call(frame))

    async def place(self, run: Held) -> Placed:
        """The sandbox of a run."""
        return Placed.model_validate(await self.call(Place(run_id=run.run_id, lease=run.lease)))

    async def secret(self, run: Held, name: str, server: str | None = None) -> str:
        """A secret for a run."""
        frame = Secret(run_id=run.run_id, lease=run.lease, name=name, server=server)
        said = await self.call(frame)
        return Value.model_validate(said).value

    async def release(self, run: Held, *, ending: bool = False) -> None:
        """Give a run back."""
        await self.call(Release(run_id=run.run_id, lease=run.lease, ending=ending))

    async def delta(self, run: Held, kind: Any, **data: Any) -> None:
        """A live piece."""
        await self.say(Delta(run_id=run.run_id, lease=run.lease, type=kind, data=data))

    async def finish(self, run: Held, text: str = "Done.", status: str = "completed") -> News:
        """Say something and end."""
        usage = used().model_copy(update={"key": "last:usage"})
        return await self.append(run, said(text, key="last:message"), usage, done(text, status))

    async def call(self, frame: Shape) -> Any:
        """Say something and wait for the answer.

        Raises:
            RunToolsError: what it was answered.
            Unavailable: the connection is gone.
        """
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self.say(frame, id=number)
        async with asyncio.timeout(SECONDS):
            answer = await self._waiting[number]
        if answer.get("error") is not None:
            raise from_wire(answer["error"])
        return answer["ok"]

    async def say(self, frame: Shape, **more: Any) -> None:
        """Send a frame."""
        await self._socket.send(json.dumps(frame.model_dump(mode="json", by_alias=True) | more))

    async def freeze(self) -> None:
        """Say by itself no more that it is there; the connection holds."""
        self._beating.cancel()
        await asyncio.wait((self._beating,))

    async def die(self) -> None:
        """Be gone from one moment to the next."""
        self._socket.transport.abort()
        await asyncio.wait((self._reading,))

    async def close(self) -> None:
        """End in order."""
        await self._socket.close()
        await asyncio.wait((self._reading,))

    @property
    def is_gone(self) -> bool:
        """Whether it has been disconnected."""
        return self._reading.done()

    async def _next(self, told: asyncio.Queue[T]) -> T:
        coming = asyncio.create_task(told.get())
        either = (coming, self._reading)
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                raise Unavailable("the connection is gone")
            return coming.result()
        finally:
            coming.cancel()

    async def _beat(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                await self.say(Here())

    async def _read(self) -> None:
        try:
            async for text in self._socket:
                self._take_in(json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self._beating.cancel()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Unavailable("the connection is gone"))

    def _take_in(self, frame: dict[str, Any]) -> None:
        if frame.get("told") == "offer":
            self.offers.put_nowait(Offer.model_validate(frame))
        elif frame.get("told") == "poke":
            self.pokes.put_nowait(frame["runId"])
        elif frame.get("id") in self._waiting:
            self._waiting.pop(frame["id"]).set_result(frame)


@asynccontextmanager
async def fake_worker(
    url: str,
    token: str,
    *,
    worker_id: str | None = None,
    slots: int = 4,
) -> AsyncIterator[FakeWorker]:
    """A worker that is connected and has said hello."""
    address = url.replace("http", "ws", 1) + PATH
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(
        address, additional_headers=headers, max_size=MAX_FRAME_BYTES, proxy=None
    ) as socket:
        worker = FakeWorker(socket, worker_id or f"worker-{secrets.token_hex(6)}")
        try:
            await worker.hello(slots)
            yield worker
        finally:
            await worker.close()


def held(given: Assignment, lease: int) -> Held:
    """The run of an assignment, under its lease."""
    return Held(run_id=given.run.id, lease=lease)


def said(text: str, turn: int = 1, key: str | None = None) -> NewEvent:
    """What the model said in a turn."""
    data = {"role": "assistant", "text": text, "turn": turn}
    return NewEvent(key=key or f"{turn}:message", type="message", data=data, wire={"raw": text})


def used(turn: int = 1, **more: Any) -> NewEvent:
    """What a turn used."""
    return NewEvent(key=f"{turn}:usage", type="usage", data={**USED, **more, "turn": turn})


def called(name: str, call_id: str = "c1", turn: int = 1, **arguments: Any) -> NewEvent:
    """A call of a tool."""
    data = {"callId": call_id, "name": name, "arguments": arguments, "turn": turn}
    return NewEvent(key=f"{turn}:{call_id}:call", type="tool-call", data=data)


def fronts(name: str, call_id: str = "f1", turn: int = 1, **arguments: Any) -> NewEvent:
    """A call that the run's front end carries out."""
    call = called(name, call_id, turn, **arguments)
    return call.model_copy(update={"data": {**call.data, "front": True}})


def answered(
    name: str, call_id: str = "c1", turn: int = 1, output: str = "ok", *, failed: bool = False
) -> NewEvent:
    """What came of it."""
    data = {"callId": call_id, "name": name, "output": output, "durationMs": 3, "turn": turn}
    return NewEvent(
        key=f"{turn}:{call_id}:result", type="tool-result", data={**data, "failed": failed}
    )


def asked(name: str, call_id: str = "c1", turn: int = 1, **arguments: Any) -> NewEvent:
    """A call that waits for a person."""
    data = {"callId": call_id, "name": name, "arguments": arguments, "turn": turn}
    return NewEvent(key=f"{turn}:{call_id}:asked", type="approval-requested", data=data)


def done(text: str | None = None, status: str = "completed", **more: Any) -> NewEvent:
    """The end."""
    data = {"status": status, "output": text, "usage": {}, "iterations": 0, **more}
    return NewEvent(key="done", type="done", data=data)
