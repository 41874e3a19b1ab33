"""Durable processes of sandboxes, as the host port gives them.

Acts wake a sandbox, as an exec does, and so does reading bytes, which lie inside. To look (list, get, read
at the end), to wait and to follow does not, and keeps none awake: while it is paused nothing happens in it,
and all stands as it did at the pause; when it is resumed the stream goes on at its offset.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final

from runtools.errors import (
    GuestUnreachable,
    InvalidRequest,
    NotFound,
    SandboxPaused,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.core.states import Operation, State
from runtools.platform.host.engine import known
from runtools.platform.host.engine.actor import Actor, held_up
from runtools.platform.host.engine.acts.queued import is_queued, still_queued
from runtools.platform.host.engine.acts.resume import is_usable
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.guest.channel import Stalled, is_silence
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.running import check_history, history_of, running, while_running
from runtools.platform.host.silence import what_happened
from runtools.sdk.shapes.processes import (
    MAX_READ_BYTES,
    Octets,
    OutputEnd,
    OutputPiece,
    OutputSpan,
    Process,
    ProcessRequest,
    Stream,
    TerminalSize,
)

_WAIT_MS: Final = 50_000  # in one request to a guest
_AGAIN_SECONDS: Final = 0.05
_AWAY_SECONDS: Final = 20.0


class Processes:
    """The part of the host port that is about processes."""

    engine: Engine

    def _guest(self, sandbox_id: str) -> AbstractAsyncContextManager[GuestClient]:
        """See `Inside`."""
        raise NotImplementedError

    async def start_process(self, sandbox_id: str, request: ProcessRequest) -> Process:
        """Start one."""
        assert request.process_id is not None  # noqa: S101 - the port says so
        box = self.engine.actor(sandbox_id)
        async with self._guest(sandbox_id) as guest, box.starts.begin(request.process_id):
            return _told(history_of(box), await guest.processes.start(request))

    async def list_processes(self, sandbox_id: str) -> builtins.list[Process]:
        """All that are known."""
        box = self.engine.actor(sandbox_id)
        _check_made(box)
        if await _sleeps(box):
            return _as_paused(box)
        async with self._guest(sandbox_id) as guest:
            history = history_of(box)
            return [_told(history, each) for each in await guest.processes.list()]

    async def get_process(self, sandbox_id: str, process_id: str) -> Process:
        """How one stands."""
        box = self.engine.actor(sandbox_id)
        _check_made(box)
        if await _sleeps(box):
            return _one_as_paused(box, process_id)
        async with self._guest(sandbox_id) as guest:
            return _told(history_of(box), await guest.processes.get(process_id))

    async def wait_process(self, sandbox_id: str, process_id: str, timeout_ms: int) -> Process:
        """Wait for the end of one."""
        box = self.engine.actor(sandbox_id)
        clock = asyncio.get_running_loop().time
        deadline = clock() + max(timeout_ms, 0) / 1000
        lost: float | None = None
        while True:
            left = deadline - clock()
            guest, history = await running(box, left), history_of(box)
            if guest is None:  # it is paused, and stays so
                return await self.get_process(sandbox_id, process_id)
            try:
                if left > 0:
                    wanted = guest.processes.wait(process_id, min(int(left * 1000), _WAIT_MS))
                else:  # a look alone, for which the agent has always a thread
                    wanted = guest.processes.get(process_id)
                seen = await while_running(box, wanted)
            except GuestUnreachable as exc:
                lost = await _bear(box, exc, lost)
                continue
            lost = None
            if seen is not None and (seen.state != "running" or clock() >= deadline):
                return _told(history, seen)

    async def read_output(
        self,
        sandbox_id: str,
        process_id: str,
        stream: Stream,
        start: int,
        limit: int,
        history: str | None = None,
    ) -> OutputPiece:
        """What is there of its output."""
        if not 1 <= limit <= MAX_READ_BYTES:
            raise InvalidRequest(f"limit must be 1 to {MAX_READ_BYTES}, not {limit}")
        box = self.engine.actor(sandbox_id)
        check_history(box, history)
        if await _sleeps(box):
            with contextlib.suppress(SandboxPaused):  # unknown: the bytes themselves will tell
                span: OutputSpan = getattr(_one_as_paused(box, process_id), stream)
                if start >= span.end:  # beyond it: what was written while it came to a stand
                    return OutputPiece(offset=start, data=b"")
        async with self._guest(sandbox_id) as guest:
            piece = await guest.processes.read(process_id, stream, start, limit)
        check_history(box, history)
        return piece

    async def follow_output(
        self,
        sandbox_id: str,
        process_id: str,
        stream: Stream,
        start: int,
        history: str | None = None,
    ) -> AsyncIterator[OutputPiece | OutputEnd]:
        """Its output as it comes."""
        box = self.engine.actor(sandbox_id)
        lost: float | None = None
        history = history or history_of(box)
        while True:
            guest = await running(box, None, history)
            assert guest is not None  # noqa: S101 - without a limit it was waited for
            since = box.record.running_since
            items = guest.processes.follow(process_id, stream, start)
            try:
                async with contextlib.aclosing(items):
                    async for item in items:
                        lost = None
                        if isinstance(item, OutputEnd):
                            told = _told(history, item.process)
                            yield item.model_copy(update={"process": told})
                            return
                        yield item
                        start = item.offset + len(item.data)
            except GuestUnreachable as exc:
                lost = await _bear(box, exc, lost, since)

    async def send_input(self, sandbox_id: str, process_id: str, op: str, data: Octets) -> int:
        """Give it input."""
        async with self._guest(sandbox_id) as guest:
            return await guest.processes.send_input(process_id, op, data)

    async def close_input(self, sandbox_id: str, process_id: str, op: str) -> Process:
        """End its input."""
        async with self._guest(sandbox_id) as guest:
            seen = await guest.processes.close_input(process_id, op)
            return _told(history_of(self.engine.actor(sandbox_id)), seen)

    async def signal_process(
        self, sandbox_id: str, process_id: str, op: str, signal: int
    ) -> Process:
        """Send it a signal."""
        async with self._guest(sandbox_id) as guest:
            seen = await guest.processes.signal(process_id, op, signal)
            return _told(history_of(self.engine.actor(sandbox_id)), seen)

    async def resize_terminal(
        self, sandbox_id: str, process_id: str, op: str, size: TerminalSize
    ) -> Process:
        """Make its terminal another size."""
        async with self._guest(sandbox_id) as guest:
            seen = await guest.processes.resize(process_id, op, size)
            return _told(history_of(self.engine.actor(sandbox_id)), seen)


def _check_made(box: Actor) -> None:
    """Refuse a look into what waits for room to be made: that may take long, and a look waits for none."""
    if box.state is State.CREATING and is_queued(box):
        raise still_queued(box, WaitsForRoom)


async def _sleeps(box: Actor) -> bool:
    """Whether it is paused. One that is just being paused is waited for: else a look would wake it."""
    while box.record.operation is Operation.PAUSING:
        if box.held_up is not None:
            raise held_up(box, Unavailable)
        await box.changed()
    return box.state is State.PAUSED


def _as_paused(box: Actor) -> list[Process]:
    """The processes of a paused sandbox, as they stood when it was paused.

    Raises:
        SandboxPaused: it was paused without having told.
    """
    found = known.read(box.machine().folder)
    if found is None:
        raise SandboxPaused(
            f"{box.id} is paused, and how its processes stand was not known by then",
            hint=f"runtools sandbox resume {box.id}: looking does not wake a sandbox",
            details={"history": history_of(box)},
        )
    return [_told(history_of(box), each) for each in found]


def _one_as_paused(box: Actor, process_id: str) -> Process:
    for process in _as_paused(box):
        if process.id == process_id:
            return process
    raise NotFound(
        f"{box.id} knows no process {process_id[:80]}", hint="GET …/processes lists those there are"
    )


def _told(history: str, process: Process) -> Process:
    return process.model_copy(update={"history": history})


async def _bear(
    box: Actor, failure: GuestUnreachable, lost: float | None, since: datetime | None = None
) -> float | None:
    """Try again in a moment, unless it misbehaves, is gone, or runs and did not answer for too long.

    Since when it has not is given and returned; while its sandbox sleeps nobody can ask it for an answer,
    nor for the rest of what it had begun: to stall is no lie. It is one of a guest that was awake all the
    time, ``since`` when it was asked: asked again, it could stall behind each piece for ever.
    """
    if not is_silence(failure):
        raise failure
    if not is_usable(box):
        return None
    now = asyncio.get_running_loop().time()
    lost = lost or now
    stuck = isinstance(failure, Stalled) and box.record.running_since == since
    if stuck or now - lost > _AWAY_SECONDS or not await box.engine.driver.is_live(box.machine()):
        raise await what_happened(box, failure) from failure
    await asyncio.sleep(_AGAIN_SECONDS)
    return lost
