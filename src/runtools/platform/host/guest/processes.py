"""The host's client of a guest agent, for durable processes. As untrusting as the rest of it."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, TypeVar

from runtools.errors import GuestMisbehaved, GuestUnreachable, TooLarge
from runtools.platform.host.guest import translate, wire
from runtools.platform.host.guest.channel import Channel, within
from runtools.platform.host.guest.patience import Patience
from runtools.platform.host.guest.pool import Pool
from runtools.sdk.shapes.processes import (
    MAX_INPUT_BYTES,
    OutputEnd,
    OutputPiece,
    Process,
    ProcessRequest,
    Stream,
    TerminalSize,
)

_MAX_PIECE: Final = 1 << 20
_MAX_LISTED: Final = 10_000
_MAX_HEAD: Final = 256 << 10

A = TypeVar("A", bound=wire.Answer)


class GuestProcesses:
    """Speaks about processes to one agent."""

    def __init__(self, pool: Pool, patience: Patience) -> None:
        self._pool = pool
        self._patience = patience

    async def start(self, request: ProcessRequest) -> Process:
        """Start one, or learn how the one stands that was started under its id."""
        assert request.process_id is not None  # noqa: S101 - the port says so
        size = request.terminal
        wanted = {
            "do": "process_start",
            "id": request.process_id,
            "command": request.command,
            "env": request.env,
            "cwd": request.cwd,
            "user": request.user,
            "terminal": size is not None,
            "rows": size.rows if size else 0,
            "columns": size.columns if size else 0,
            "keep_input": request.keep_input,
            "keep": request.keep_output_bytes,
        }
        return _named(await self._ask(wanted, wire.Held), request.process_id)

    async def get(self, process_id: str) -> Process:
        """How one stands."""
        said = await self._ask({"do": "process", "process": process_id}, wire.Held)
        return _named(said, process_id)

    async def list(self) -> builtins.list[Process]:
        """All that are known, oldest first."""
        found: list[Process] = []
        after: int | None = 0
        while after is not None:
            page = await self._ask({"do": "processes", "after": after}, wire.HeldPage)
            if len(found) + len(page.processes) > _MAX_LISTED:
                raise GuestMisbehaved("the agent inside lists more processes than it may keep")
            if page.next is not None and (page.next <= after or not page.processes):
                raise GuestMisbehaved("the agent inside lists its processes without end")
            found += [translate.process(held) for held in page.processes]
            after = page.next
        return found

    async def wait(self, process_id: str, timeout_ms: int) -> Process:
        """How one stands at its end, or when time is up."""
        wanted = {"do": "process_wait", "process": process_id, "timeout_ms": timeout_ms}
        seconds = timeout_ms / 1000 + self._patience.op
        return _named(await self._ask(wanted, wire.Held, seconds), process_id)

    async def read(self, process_id: str, stream: Stream, start: int, limit: int) -> OutputPiece:
        """What is there of a stream."""
        wanted = {
            "do": "process_output",
            "process": process_id,
            "stream": stream,
            "start": start,
            "limit": limit,
        }

        async def act(channel: Channel) -> OutputPiece:
            channel.send(wanted)
            said = wire.answer(await channel.receive(_MAX_HEAD), wire.Piece)
            return await _piece(channel, said, start, limit)

        return await within(self._patience.op, self._pool.repeat(act), "process_output")

    async def follow(
        self, process_id: str, stream: Stream, start: int
    ) -> AsyncGenerator[OutputPiece | OutputEnd, None]:
        """A stream as it comes, over one connection.

        Raises:
            Interrupted: the connection broke: follow again from where it came to.
            GuestUnreachable: no word came for long, and the agent does not answer at all.
        """
        channel = await self._pool.take()
        done = self._pool.give_up
        try:
            channel.send(
                {"do": "process_follow", "process": process_id, "stream": stream, "start": start}
            )
            while True:
                said = wire.answer(await self._next(channel), wire.Followed)
                if said.process is not None:
                    process = _named(said.process, process_id)
                    if said.end != start or process.state == "running":
                        raise GuestMisbehaved("the agent inside ended a stream where it goes on")
                    done = self._pool.give_back
                    yield OutputEnd(offset=start, process=process)
                    return
                piece = await _piece(channel, said.piece(), start, _MAX_PIECE)
                if not piece.data and not piece.dropped:
                    raise GuestMisbehaved("the agent inside sent a piece with nothing in it")
                start = piece.offset + len(piece.data)
                yield piece
        finally:
            done(channel)

    async def _next(self, channel: Channel) -> dict[str, Any]:
        """What a followed stream says next. Its process may be silent for ever, its agent may not."""
        said = asyncio.ensure_future(channel.receive(_MAX_HEAD))
        try:
            while not (await asyncio.wait({said}, timeout=self._patience.quiet))[0]:
                try:
                    await self._ask({"do": "ping"}, wire.Nothing)
                except GuestUnreachable:
                    if not said.done():
                        raise
            return said.result()
        finally:
            said.cancel()

    async def send_input(self, process_id: str, op: str, data: bytes) -> int:
        """Give input; how much it was given in all."""
        if len(data) > MAX_INPUT_BYTES:
            raise TooLarge(
                f"{len(data)} bytes of input; at most {MAX_INPUT_BYTES} are taken at a time",
                hint="send it in pieces",
            )

        async def act(channel: Channel) -> int:
            channel.send({"do": "process_input", "process": process_id, "id": op})
            channel.send_bytes(data)
            return wire.answer(await channel.receive(), wire.Taken).taken

        return await within(self._patience.op, self._pool.repeat(act), "process_input")

    async def close_input(self, process_id: str, op: str) -> Process:
        """End its input."""
        return await self._act("process_close", process_id, op)

    async def signal(self, process_id: str, op: str, number: int) -> Process:
        """Send a signal."""
        return await self._act("process_signal", process_id, op, signal=number)

    async def resize(self, process_id: str, op: str, size: TerminalSize) -> Process:
        """Make its terminal another size."""
        return await self._act(
            "process_resize", process_id, op, rows=size.rows, columns=size.columns
        )

    async def _act(self, do: str, process_id: str, op: str, **fields: int) -> Process:
        wanted = {"do": do, "process": process_id, "id": op, **fields}
        return _named(await self._ask(wanted, wire.Held), process_id)

    async def _ask(
        self, request: Mapping[str, Any], kind: type[A], seconds: float | None = None
    ) -> A:
        async def act(channel: Channel) -> A:
            channel.send(request)
            return wire.answer(await channel.receive(), kind)

        return await within(
            seconds or self._patience.op, self._pool.repeat(act), str(request["do"])
        )


def _named(held: wire.Held, process_id: str) -> Process:
    if held.id != process_id:
        raise GuestMisbehaved("the agent inside told of another process than was asked for")
    return translate.process(held)


async def _piece(channel: Channel, said: wire.Piece, start: int, limit: int) -> OutputPiece:
    if said.offset != start + said.dropped or said.size > limit:
        raise GuestMisbehaved("the agent inside sent another piece of output than was asked for")
    data = await channel.receive_bytes(said.size) if said.size else b""
    return OutputPiece(offset=said.offset, data=data, dropped=said.dropped)
