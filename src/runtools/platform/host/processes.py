"""Durable processes of sandboxes, as the host port gives them.

Acts wake a sandbox, as an exec does, and so does reading bytes, which lie inside. To look (list, get, read
at the end), to wait and to follow does not, and keeps none awake: while it is paused nothing happens in it,
and all stands as it did at the pause; when it is resumed the stream goes on at its offset.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final, TypeVar

from runtools.errors import (
    Conflict,
    GuestUnreachable,
    HostUnavailable,
    InvalidRequest,
    NotFound,
    ProcessEnded,
    RunToolsError,
    SandboxPaused,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.core import histories
from runtools.platform.core.ids import new_id
from runtools.platform.core.states import Operation, State
from runtools.platform.host.engine import known
from runtools.platform.host.engine.actor import Actor, held_up
from runtools.platform.host.engine.acts.queued import is_queued, still_queued
from runtools.platform.host.engine.acts.resume import is_usable
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.guest.channel import Stalled, is_silence
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.silence import stopped, what_happened
from runtools.platform.kit.clock import Backoff
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

log = logging.getLogger(__name__)

_WAIT_MS: Final = 50_000  # in one request to a guest
_AGAIN_SECONDS: Final = 0.05
_AWAY_SECONDS: Final = 20.0
_END_MS: Final = 10_000  # for what was killed
_AT_ONCE: Final = 4
_MOST_TO_END: Final = 1000
_MOST_CALLED_OFF: Final = 1000
_CALLED_OFF: Final = timedelta(days=1)  # as long as requests are remembered, and may be repeated

T = TypeVar("T")


class Processes:
    """The part of the host port that is about processes."""

    engine: Engine

    @cached_property
    def _ending(self) -> set[str]:
        """The sandboxes for which somebody ends what is to end there."""
        return set()

    def _guest(self, sandbox_id: str) -> AbstractAsyncContextManager[GuestClient]:
        """See `Inside`."""
        raise NotImplementedError

    async def start_process(self, sandbox_id: str, request: ProcessRequest) -> Process:
        """Start one."""
        assert request.process_id is not None  # noqa: S101 - the port says so
        box = self.engine.actor(sandbox_id)
        async with self._guest(sandbox_id) as guest, box.starts.begin(request.process_id):
            return _told(_history(box), await guest.processes.start(request))

    async def end_process(self, sandbox_id: str, process_id: str) -> None:
        """End one, begun or not. It is owed first: whatever comes between, it is ended later."""
        box = self.engine.actor(sandbox_id)
        if box.state is State.STOPPED:
            raise stopped(box)
        _owe(box, process_id)
        try:
            with box.hold():
                while is_usable(box):
                    if await self._settled(box, process_id):
                        return
        finally:
            self._end_later(box)

    def end_owed(self) -> None:
        """End what is to end, once its sandbox goes on: after a start of the host, and in children."""
        for box in self.engine.actors.values():
            self._end_later(box)

    def _end_later(self, box: Actor) -> None:
        if box.record.to_end and box.id not in self._ending:
            self._ending.add(box.id)
            self.engine.later(self._end_awake(box), f"ending processes of {box.id}")

    async def _end_awake(self, box: Actor) -> None:
        """End what is to end in a sandbox whenever it goes on, whoever has that happen.

        What cannot be ended holds up none of the others, and is tried again for as long as it runs.
        """
        places = asyncio.Semaphore(_AT_ONCE)

        async def tried(process_id: str) -> None:
            async with places:
                try:
                    await self._settled(box, process_id)
                except RunToolsError as exc:
                    log.warning("process %s of %s is not ended yet: %s", process_id, box.id, exc)

        try:
            while box.record.to_end:
                backoff = Backoff(self.engine.clock, first=_AGAIN_SECONDS)
                while is_usable(box) and box.record.to_end:
                    await asyncio.gather(*(tried(one) for one in box.record.to_end))
                    if box.record.to_end:
                        await _while_running(box, backoff.wait())
                if box.state is State.STOPPED:
                    return
                if box.record.to_end:
                    await box.changed()
        finally:
            self._ending.discard(box.id)

    async def _settled(self, box: Actor, process_id: str) -> bool:
        """Whether it runs no more, nor ever will; False: its sandbox runs no more, and it stays owed."""
        begun = await _while_running(box, self._ended(box, process_id))
        if begun is None:
            return False
        if begun:
            _keep(box, to_end=_without(box, process_id))
        else:
            _call_off(box, process_id)
        return True

    async def _ended(self, box: Actor, process_id: str) -> bool | None:
        """End it where it runs; False: it has not begun. None: its sandbox runs no more."""
        await box.starts.handed_over(process_id)
        guest = await _running(box, 0)
        if guest is None:
            return None
        try:
            await guest.processes.signal(process_id, new_id("opn"), signal.SIGKILL)
            over = await guest.processes.wait(process_id, _END_MS)
        except NotFound:
            return False
        except ProcessEnded:
            return True
        except GuestUnreachable as exc:
            if not is_usable(box):
                return None
            raise await what_happened(box, exc) from exc
        if over.state == "running":
            raise Unavailable(f"process {process_id} of {box.id} was killed, and has not ended")
        return True

    async def list_processes(self, sandbox_id: str) -> builtins.list[Process]:
        """All that are known."""
        box = self.engine.actor(sandbox_id)
        _check_made(box)
        if await _sleeps(box):
            return _as_paused(box)
        async with self._guest(sandbox_id) as guest:
            history = _history(box)
            return [_told(history, each) for each in await guest.processes.list()]

    async def get_process(self, sandbox_id: str, process_id: str) -> Process:
        """How one stands."""
        box = self.engine.actor(sandbox_id)
        _check_made(box)
        if await _sleeps(box):
            return _one_as_paused(box, process_id)
        async with self._guest(sandbox_id) as guest:
            return _told(_history(box), await guest.processes.get(process_id))

    async def wait_process(self, sandbox_id: str, process_id: str, timeout_ms: int) -> Process:
        """Wait for the end of one."""
        box = self.engine.actor(sandbox_id)
        clock = asyncio.get_running_loop().time
        deadline = clock() + max(timeout_ms, 0) / 1000
        lost: float | None = None
        while True:
            left = deadline - clock()
            guest, history = await _running(box, left), _history(box)
            if guest is None:  # it is paused, and stays so
                return await self.get_process(sandbox_id, process_id)
            try:
                if left > 0:
                    wanted = guest.processes.wait(process_id, min(int(left * 1000), _WAIT_MS))
                else:  # a look alone, for which the agent has always a thread
                    wanted = guest.processes.get(process_id)
                seen = await _while_running(box, wanted)
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
        _check_history(box, history)
        if await _sleeps(box):
            with contextlib.suppress(SandboxPaused):  # unknown: the bytes themselves will tell
                span: OutputSpan = getattr(_one_as_paused(box, process_id), stream)
                if start >= span.end:  # beyond it: what was written while it came to a stand
                    return OutputPiece(offset=start, data=b"")
        async with self._guest(sandbox_id) as guest:
            piece = await guest.processes.read(process_id, stream, start, limit)
        _check_history(box, history)
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
        history = history or _history(box)
        while True:
            guest = await _running(box, None, history)
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
            return _told(_history(self.engine.actor(sandbox_id)), seen)

    async def signal_process(
        self, sandbox_id: str, process_id: str, op: str, signal: int
    ) -> Process:
        """Send it a signal."""
        async with self._guest(sandbox_id) as guest:
            seen = await guest.processes.signal(process_id, op, signal)
            return _told(_history(self.engine.actor(sandbox_id)), seen)

    async def resize_terminal(
        self, sandbox_id: str, process_id: str, op: str, size: TerminalSize
    ) -> Process:
        """Make its terminal another size."""
        async with self._guest(sandbox_id) as guest:
            seen = await guest.processes.resize(process_id, op, size)
            return _told(_history(self.engine.actor(sandbox_id)), seen)


def _check_made(box: Actor) -> None:
    """Refuse a look into what waits for room to be made: that may take long, and a look waits for none."""
    if box.state is State.CREATING and is_queued(box):
        raise still_queued(box, WaitsForRoom)


def _owe(box: Actor, process_id: str) -> None:
    """Note that it is to end: from here on it does not begin.

    Raises:
        Conflict: as much is owed to its sandbox as is kept.
    """
    if process_id in box.record.to_end:
        return
    if len(box.record.to_end) >= _MOST_TO_END:
        raise Conflict(
            f"{_MOST_TO_END} processes of {box.id} are to end already, once it goes on",
            hint=f"runtools sandbox resume {box.id}: they end then",
        )
    _keep(box, to_end=(*box.record.to_end, process_id))


def _call_off(box: Actor, process_id: str) -> None:
    """Note that it never begins, for as long as somebody may still ask for that.

    Where as many are noted as are kept it stays owed until there is a place: none is forgotten before.
    """
    now = box.engine.clock.now()
    noted = {one: at for one, at in box.record.called_off.items() if now - at < _CALLED_OFF}
    if process_id not in noted and len(noted) >= _MOST_CALLED_OFF:
        return
    noted[process_id] = now
    _keep(box, to_end=_without(box, process_id), called_off=noted)


def _without(box: Actor, process_id: str) -> tuple[str, ...]:
    return tuple(one for one in box.record.to_end if one != process_id)


def _keep(box: Actor, **owed: Any) -> None:
    """Write down what is to end; on a full disk it is known for as long as the host is up."""
    record = replace(box.record, **owed)
    try:
        box.books.note(record)
    except OSError as exc:
        log.warning("what is to end in %s is not journaled: %s", box.id, exc)
        box.books.record = record


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
            details={"history": _history(box)},
        )
    return [_told(_history(box), each) for each in found]


def _one_as_paused(box: Actor, process_id: str) -> Process:
    for process in _as_paused(box):
        if process.id == process_id:
            return process
    raise NotFound(
        f"{box.id} knows no process {process_id[:80]}", hint="GET …/processes lists those there are"
    )


def _history(box: Actor) -> str:
    """In which of its machines it is, as users are told: a rollback begins another."""
    return str(box.record.life.number) if box.record.life is not None else ""


def _told(history: str, process: Process) -> Process:
    return process.model_copy(update={"history": history})


async def _running(
    box: Actor, seconds: float | None, history: str | None = None
) -> GuestClient | None:
    """The guest of a sandbox once it runs; it is not woken. None when time is up before.

    Raises:
        HistoryChanged: it is in another history by now, where one is given.
        SandboxStopped: it has ended.
        HostUnavailable: it runs, but this host could not take it over at its start.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not is_usable(box):
                if box.state is State.STOPPED:
                    raise stopped(box)
                _check_history(box, history)
                await box.changed()
    _check_history(box, history)
    if not is_usable(box):
        return None
    if box.guest is None:
        raise HostUnavailable(f"{box.id} could not be adopted; the host's log says why")
    return box.guest


def _check_history(box: Actor, history: str | None) -> None:
    """What a process writes after a rollback is not the going on of what it wrote before."""
    now = _history(box)
    if history and now and history != now:
        raise histories.changed(box.id, now)


async def _while_running(box: Actor, asking: Coroutine[Any, Any, T]) -> T | None:
    """The answer of a guest; None when the sandbox ceased to run before it came."""
    task = asyncio.create_task(asking)
    try:
        while not task.done() and is_usable(box):
            changed = asyncio.ensure_future(box.changed())
            await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        return task.result() if task.done() else None
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


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
