"""One connection to a guest agent: whole frames, deadlines on all that is waited for.

A channel is used by one operation at a time. After anything went wrong, a cancellation included, nobody
knows where in the conversation it stands: it is closed and never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from runtools.errors import GuestMisbehaved, GuestUnreachable, TooLarge
from runtools.guest import protocol
from runtools.guest.protocol import BYTES, END, HEADER, JSON, BadFrame
from runtools.platform.host.guest import wire
from runtools.platform.host.guest.patience import Patience

_SLOWEST: Final = 16 << 10  # bytes a second: what comes slower all the time is a drip, not a stream
_PACE: Final = (
    1 << 20
)  # the same of what lies there already, and takes of everybody's memory meanwhile
_BUFFER: Final = 1 << 20

Connect = Callable[[], Awaitable[socket.socket]]
T = TypeVar("T")


class Interrupted(GuestUnreachable):
    """The connection could not be made or broke; what was asked may have been done or not."""


class Refused(GuestMisbehaved):
    """The agent answers, but does not take our token or versions."""


class Stalled(GuestMisbehaved):
    """The agent did not go on with what it had begun, or let us go on."""


def is_silence(failure: GuestUnreachable) -> bool:
    """Whether a guest only fell silent, be it in the middle of what it said: its sandbox may sleep."""
    return not isinstance(failure, GuestMisbehaved) or isinstance(failure, Stalled)


class Channel:
    """A greeted connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: Patience
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._stall = patience.stall
        self._output = patience.output
        self.hello: wire.Hello | None = None
        self.used = False  # whether an operation went well on it, so that it may be stale by now
        self.broken = False

    @classmethod
    async def open(cls, connect: Connect, token: str, patience: Patience) -> Channel:
        """Connect and greet.

        Raises:
            Interrupted: nobody answers.
            Refused: the agent does not want us.
            GuestMisbehaved: it does not speak the protocol.
        """
        try:
            sock = await connect()
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader, writer = await asyncio.open_connection(sock=sock, limit=_BUFFER)
        except (ConnectionError, TimeoutError, OSError) as exc:
            raise Interrupted(f"the agent inside cannot be reached: {exc}") from exc
        channel = cls(reader, writer, patience)
        try:
            channel.send({"versions": list(protocol.SPOKEN), "token": token})
            said = await channel.receive()
            if "error" in said:
                raise Refused(str(wire.problem(said)))
            channel.hello = wire.answer(said, wire.Hello)
            if channel.hello.version not in protocol.SPOKEN:
                raise GuestMisbehaved("the agent inside chose a version that was not offered")
        except BaseException:
            channel.abort()
            raise
        return channel

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; `receive` waits until it is out."""
        text = json.dumps(request, separators=(",", ":"), sort_keys=True).encode()
        if len(text) > protocol.MAX_JSON:
            raise TooLarge(f"a request of {len(text)} bytes; at most {protocol.MAX_JSON} are taken")
        self._writer.write(protocol.frame(JSON, text))

    async def receive(self, most: int = protocol.MAX_JSON) -> dict[str, Any]:
        """The next answer, of at most so many bytes."""
        kind, length = await self._header(most)
        if kind != JSON:
            raise self._misbehaved(f"a frame of kind {kind} where an answer was due")
        return wire.parse(await self._exactly(length))

    async def receive_bytes(self, size: int) -> bytes:
        """One frame of so many bytes, due now."""
        try:
            async with asyncio.timeout(self._stall):
                if await self._header() == (BYTES, size):
                    return await self._exactly(size)
        except TimeoutError as exc:
            raise self._stalled("nothing of the bytes that it announced") from exc
        raise self._misbehaved("other bytes than it announced")

    async def body(self, most: int) -> AsyncIterator[bytes]:
        """The bytes of a body, at most so many; patience ends with a stall or a drip.

        Raises:
            GuestMisbehaved: more came, or it came too slowly.
            RunToolsError: the agent ended it with an error.
        """
        clock = asyncio.get_running_loop().time
        came, waited = 0, 0.0
        while True:
            began = clock()
            try:
                async with asyncio.timeout(self._stall):
                    kind, length = await self._header()
                    data = await self._exactly(length)
            except TimeoutError as exc:
                raise self._stalled("nothing more of a body") from exc
            waited += clock() - began
            if kind == END:
                if data:
                    raise wire.problem(wire.parse(data))
                return
            came += len(data)
            if kind != BYTES or not data or came > most:
                raise self._misbehaved("a body that is longer than was said")
            if waited > self._stall + came / _SLOWEST:
                raise self._stalled("a body, but far too slowly")
            yield data

    async def whole_body(self, most: int) -> bytes:
        """A body that is there already, of at most so many bytes.

        Raises:
            GuestMisbehaved: more came, or it did not come at a pace.
            RunToolsError: the agent ended it with an error.
        """
        try:
            async with asyncio.timeout(self._output + most / _PACE):
                return b"".join([piece async for piece in self.body(most)])
        except TimeoutError as exc:
            raise self._stalled("what lies there already far too slowly") from exc

    async def send_body(self, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        """Send a body as fast as the guest takes it; returns the answer, which may come early."""
        answer = asyncio.ensure_future(self.receive())
        try:
            async for chunk in chunks:
                for at in range(0, len(chunk), protocol.CHUNK):
                    self._writer.write(protocol.frame(BYTES, chunk[at : at + protocol.CHUNK]))
                    await self._drain(answer)
                if answer.done():
                    break
            early = answer.done()
            self._writer.write(protocol.frame(END, b"{}" if early else b""))
            await self._drain(answer)
            async with asyncio.timeout(self._stall):
                return await answer
        except TimeoutError as exc:
            raise self._stalled("no answer to a body that it was sent") from exc
        except BaseException:
            self.abort()  # the guest still waits for the rest of the body
            raise
        finally:
            answer.cancel()
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where the chunks' own error goes up instead

    def send_bytes(self, data: bytes) -> None:
        """Send a small body whole."""
        for piece in protocol.body_frames(data):
            self._writer.write(piece)

    def abort(self) -> None:
        """Close at once; what is under way on it fails."""
        self.broken = True
        self._writer.transport.abort()

    def is_open(self) -> bool:
        """Whether it may be used again, as far as is known."""
        return not (self.broken or self._writer.is_closing() or self._reader.at_eof())

    async def _drain(self, answer: asyncio.Future[dict[str, Any]]) -> None:
        """Wait until there is room to send, or the answer is there already."""
        if self._writer.transport.get_write_buffer_size() < _BUFFER:
            return
        drain = asyncio.ensure_future(self._writer.drain())
        try:
            async with asyncio.timeout(self._stall):
                both: set[asyncio.Future[Any]] = {drain, answer}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if drain.done():
                _ = drain.exception()
        finally:
            drain.cancel()

    async def _header(self, json_limit: int = protocol.MAX_JSON) -> tuple[int, int]:
        try:
            return protocol.parse_header(await self._exactly(HEADER.size), json_limit=json_limit)
        except BadFrame as exc:
            raise self._misbehaved(str(exc)) from exc

    async def _exactly(self, count: int) -> bytes:
        try:
            return await self._reader.readexactly(count)
        except (asyncio.IncompleteReadError, OSError) as exc:
            self.broken = True
            raise Interrupted("the agent inside broke off the connection") from exc

    def _misbehaved(self, what: str) -> GuestMisbehaved:
        self.abort()
        return GuestMisbehaved(f"the agent inside sent {what}")

    def _stalled(self, what: str) -> Stalled:
        self.abort()
        return Stalled(f"the agent inside sent {what}")


async def within(
    seconds: float, act: Awaitable[T], what: str, limit: asyncio.Timeout | None = None
) -> T:
    """Do something in a given time; ``limit``, where somebody must know it, is that time.

    Raises:
        GuestUnreachable: time is up.
    """
    try:
        async with limit or asyncio.timeout(seconds):
            return await act
    except TimeoutError as exc:
        raise GuestUnreachable(f"{what}: the agent inside did not answer in {seconds:g} s") from exc


@contextlib.contextmanager
def not_counted(limit: asyncio.Timeout) -> Iterator[None]:
    """What is waited for here is not the agent, whose time stands still meanwhile."""
    clock, due = asyncio.get_running_loop().time, limit.when()
    began = clock()
    limit.reschedule(None)
    try:
        yield
    finally:
        limit.reschedule(None if due is None else due + clock() - began)
