"""Servers of tools that run inside the sandbox: MCP over the stdin and stdout of a durable process there.

One is started when it is first needed and lives until the worker lets go of the run; where it ends before
that, the next call starts it anew. It is given what its definition says, and what every process of the
sandbox has: no key of the platform or of a model is ever there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from runtools.errors import RunToolsError, SandboxPaused
from runtools.platform.agents.tools.room import Room
from runtools.platform.agents.tools.session import Session
from runtools.sdk.concurrency import async_farewell
from runtools.sdk.processes import AsyncProcess
from runtools.sdk.sandbox import AsyncSandbox
from runtools.sdk.shapes.definitions import McpServer
from runtools.sdk.shapes.processes import MAX_INPUT_BYTES

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams
    from mcp.client.client import Client

log = logging.getLogger(__name__)

MOST_OF_A_LINE = 16 * 1024 * 1024
_END_SECONDS = 10.0
_ROOM_SECONDS = 60.0  # as long as any other call waits for it
_TAIL_BYTES, _TAIL_CHARACTERS = 4096, 500


class Ended(Exception):
    """The server is gone; the message says how, and what it wrote last to stderr."""


class Resident:
    """One server of the run's sandbox.

    Args:
        room: of where it runs.
        name: how the names of its processes begin, under any lease of the run.
        lease: the run's.
    """

    def __init__(self, server: McpServer, room: Room, name: str, lease: int) -> None:
        self._server = server
        self._room = room
        self._name = name
        self._lease = lease
        self._starts = 0
        self._starting = asyncio.Lock()
        self._session: _Session | None = None

    async def client(self) -> Client:
        """A client that is connected to it.

        Raises:
            RunToolsError: there is no sandbox for it.
            Ended: it did not stay.
        """
        async with self._starting:
            if self._session is None or self._session.is_over:
                self._session = _Session(await self._room.made(self._start), self._room)
            return await self._session.client()

    async def close(self) -> None:
        """End it."""
        if self._session is not None:
            await self._session.close()

    async def how_it_ended(self) -> str | None:
        """How it ended, where it has."""
        return None if self._session is None else await self._session.how_it_ended()

    async def _start(self, sandbox: AsyncSandbox) -> AsyncProcess:
        if not self._starts and self._lease > 1:
            try:
                await self._end_earlier(sandbox)
            except SandboxPaused:  # nobody knows what runs there: the start would wake it, too
                await sandbox.resume(timeout_seconds=_ROOM_SECONDS)
                await self._end_earlier(sandbox)
        self._starts += 1
        name = f"{self._name}.{self._lease}.{self._starts}"
        assert self._server.command is not None  # noqa: S101 - others are called at their address
        try:
            return await sandbox.processes.start(
                self._server.command, env=self._server.env, process_id=name
            )
        except BaseException:
            # It was broken off, and nobody knows how far it had come: it begins no more, or ends.
            await async_farewell(lambda: sandbox.processes.end(name))
            raise

    async def _end_earlier(self, sandbox: AsyncSandbox) -> None:
        """End those that nobody speaks with any more: a worker that died has left them."""
        for process in await sandbox.processes.list():
            if process.id.startswith(f"{self._name}.") and process.state == "running":
                await _end(process)


class _Session(Session):
    """A process and the client that speaks with it."""

    def __init__(self, process: AsyncProcess, room: Room) -> None:
        self._process = process
        self._room = room
        self._why: str | None = None
        super().__init__()

    async def close(self) -> None:
        """Leave, and end the process."""
        self._leave()
        await asyncio.wait((self._task,))

    async def how_it_ended(self) -> str | None:
        """What became of it, once the connection is gone."""
        if not self._leaving.is_set():
            return None
        await asyncio.wait((self._task,))
        return self._why

    async def _serve(self) -> None:
        from mcp.client.client import Client  # noqa: PLC0415 - few agents bring servers

        try:
            await self._hold(Client(_lines(self._process, self._room, self._gone)))
        except Exception as failure:  # noqa: BLE001 - whatever a stranger's server makes of the client
            log.info("the server of %s: %r", self._process.id, type(failure))
        finally:
            said = self._why
            self._leaving.set()
            self._why = await _last_words(self._process, said)
            self._fail(Ended(self._why))

    def _gone(self, why: str | None) -> None:
        self._why = self._why or why
        self._leaving.set()


@asynccontextmanager
async def _lines(
    process: AsyncProcess, room: Room, on_end: Callable[[str | None], None]
) -> AsyncIterator[TransportStreams]:
    """Messages to and from a process, a line each; ``on_end`` is told when no more can come."""
    said, heard = anyio.create_memory_object_stream[Any](0)
    sending, to_send = anyio.create_memory_object_stream[Any](0)

    async def over(work: Awaitable[None]) -> None:
        why = None
        try:
            await work
        except (Ended, RunToolsError) as error:
            why = str(error)
        finally:
            on_end(why)
            said.close()

    tasks = [
        asyncio.create_task(over(_hear(process, said))),
        asyncio.create_task(over(_tell(process, room, to_send))),
    ]
    try:
        yield heard, sending
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (said, heard, sending, to_send):
            stream.close()


async def _hear(process: AsyncProcess, said: Any) -> None:
    from mcp.shared.message import SessionMessage  # noqa: PLC0415
    from mcp_types import jsonrpc_message_adapter  # noqa: PLC0415

    def lost(count: int) -> None:
        raise Ended(f"{count} bytes of what it said were lost")

    line: list[bytes] = []
    size = 0
    async with aclosing(process.follow(0, "stdout", on_dropped=lost)) as pieces:
        async for piece in pieces:
            *ends, rest = piece.split(b"\n")
            for end in ends:
                whole = b"".join([*line, end])
                line, size = [], 0
                with contextlib.suppress(ValueError):  # servers print this and that
                    message = jsonrpc_message_adapter.validate_json(whole, by_name=False)
                    await said.send(SessionMessage(message))
            line.append(rest)
            size += len(rest)
            if size > MOST_OF_A_LINE:
                raise Ended(f"it wrote a line of more than {MOST_OF_A_LINE} bytes")


async def _tell(process: AsyncProcess, room: Room, to_send: Any) -> None:
    async for message in to_send:
        line = f"{message.message.model_dump_json(by_alias=True, exclude_unset=True)}\n".encode()
        # A piece at a time: the sandbox may be paused in between, and what was taken is not said again.
        for begin in range(0, len(line), MAX_INPUT_BYTES):
            piece = line[begin : begin + MAX_INPUT_BYTES]

            async def send(_: AsyncSandbox, piece: bytes = piece) -> None:
                await process.send_input(piece)

            await room.made(send)


async def _last_words(process: AsyncProcess, why: str | None) -> str:
    """End what still runs, and say how it ended."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.refresh()
            if process.state == "running":
                await _end(process)
                return why or "it was ended"
            begin = max(process.view.stderr.end - _TAIL_BYTES, process.view.stderr.kept_from)
            tail = await process.output(begin, "stderr")
    except (RunToolsError, TimeoutError) as error:
        return why or str(error) or "it did not answer"
    how = (
        f"signal {process.view.signal}" if process.view.signal else f"code {process.view.exit_code}"
    )
    words = " ".join(tail.decode(errors="replace").split())[-_TAIL_CHARACTERS:]
    return f"it ended with {how}" + (f"; its stderr ends with {words!r}" if words else "")


async def _end(process: AsyncProcess) -> None:
    with contextlib.suppress(RunToolsError):
        await process.kill()
