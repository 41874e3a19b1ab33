"""Streams into sandboxes: opened through the guest agent, over pauses, and to the end of the machine.

Bytes in either direction count as activity, and a stream on which none come keeps nothing awake; nor does a
WebSocket on which there are pings and pongs alone (`pulses`), and none of them wakes what sleeps. What else
is sent to a sandbox that sleeps wakes it first: its connections live on as long as its network is kept. A
stream whose network was given back meanwhile stays open, silent, until somebody says something on it or
the sandbox goes on: its closing would have whoever is behind it connect again, and wake it for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from runtools.errors import (
    Conflict,
    GuestUnreachable,
    InvalidRequest,
    RateLimited,
    RunToolsError,
    WaitsForRoom,
)
from runtools.guest.protocol import PORT
from runtools.platform.core import pulses
from runtools.platform.core.dev_urls import SSH_PORT
from runtools.platform.core.states import State
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.resume import awake, is_usable
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.silence import what_happened
from runtools.platform.kit.splice import Half, Splice, Unread, is_gone

log = logging.getLogger(__name__)

MAX_STREAMS: Final = 1000
_KEPT_FOR_SSH: Final = 50
_SWEEP_SECONDS: Final = 2.0
_WOKEN_SECONDS: Final = 5.0  # in which somebody else has it go on


@dataclass(frozen=True, slots=True)
class Way:
    """A socket to a port of a sandbox, and whose it is."""

    box: Actor
    guest: GuestClient
    sock: socket.socket


class Entering:
    """All streams of one host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: Counter[str] = Counter()
        self._streams: set[Stream] = set()
        self._sweeping: asyncio.Task[None] | None = None

    def count(self, sandbox_id: str) -> int:
        """How many are open to a sandbox."""
        return self._open[sandbox_id]

    async def connect(self, sandbox_id: str, port: int) -> Way:
        """A socket to a port of a sandbox, which is awake; see `Reach.open`."""
        if port == PORT:
            raise InvalidRequest(f"port {port} is the guest agent's and cannot be reached")
        box = self._engine.actor(sandbox_id)
        with box.hold():
            while True:
                guest = await awake(box, Why("request", PLATFORM))
                try:
                    sock = await guest.open_port(port)
                except GuestUnreachable as exc:
                    if is_usable(box) and box.guest is guest:
                        raise await what_happened(box, exc) from exc
                else:
                    # Who knocks and finds nobody, again and again, keeps nothing awake.
                    box.touch()
                    return Way(box, guest, sock)

    def admit(self, sandbox_id: str, port: int) -> Callable[[], None]:
        """Count one more stream; returns what counts it off. Some are kept for who comes by SSH.

        Raises:
            RateLimited: there are too many.
        """
        most = MAX_STREAMS if port == SSH_PORT else MAX_STREAMS - _KEPT_FOR_SSH
        if self._open[sandbox_id] >= most:
            raise RateLimited(
                f"{most} connections to {sandbox_id} are open already",
                hint="close some of them",
            )
        self._open[sandbox_id] += 1

        def leave() -> None:
            self._open[sandbox_id] -= 1
            if not self._open[sandbox_id]:
                del self._open[sandbox_id]

        return leave

    async def join(
        self,
        front: asyncio.Transport,
        early: bytes,
        way: Way,
        over: Callable[[], None],
        *,
        wakes: bool = True,
    ) -> None:
        """Move bytes between a caller and a port from now on.

        Args:
            front: the caller, of whom nothing is read now.
            early: what came from it already.
            way: from `connect`.
            over: is called when the stream has ended.
            wakes: see `Reach.open`.
        """
        loop = asyncio.get_running_loop()
        back, _ = await loop.create_connection(Unread, sock=way.sock)

        def ended() -> None:
            self._streams.discard(stream)
            over()

        stream = Stream(front, back, way, ended, wakes=wakes)
        self._streams.add(stream)
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())
        if early:
            stream.carry(stream.inward, early)
        stream.begin()

    def close(self) -> None:
        """Break every stream off."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for stream in list(self._streams):
            stream.abort()

    async def _sweep(self) -> None:
        """Break off streams whose caller is gone, where nothing else tells: it ended its direction, or is
        not read from because the machine takes nothing. What still moves is let move.
        """
        stood: dict[Stream, int] = {}
        while self._streams:
            await asyncio.sleep(_SWEEP_SECONDS)
            gone = {one: one.moved for one in self._streams if one.is_left()}
            for stream, moved in gone.items():
                if stood.get(stream) == moved:
                    stream.abort()
            stood = gone


class Stream(Splice):
    """One stream: the caller is the front, the machine the back."""

    def __init__(
        self,
        front: asyncio.Transport,
        back: asyncio.Transport,
        way: Way,
        over: Callable[[], None],
        *,
        wakes: bool,
    ) -> None:
        super().__init__(front, back, over)
        self._wakes = wakes
        self._is_socket = False  # a WebSocket is spoken on it
        self._pulse = b""  # the latest, which waits for the sandbox to go on
        self._box = way.box
        self._guest = way.guest
        self.moved = 0  # bytes so far
        self._back_is_gone = False
        self._work: asyncio.Task[None] | None = None
        way.guest.cuts.add(self._cut)
        if way.box.guest is not way.guest:
            self._cut()

    def carry(self, half: Half, data: bytes) -> None:
        """Pass on what came; a sandbox that sleeps is woken for it."""
        self.moved += len(data)
        is_pulse = self._is_socket and pulses.is_pulse(data)
        if not is_pulse:
            self._box.touch()
        if half is self.outward:
            self._is_socket = self._is_socket or data.startswith(pulses.SWITCHED)
            half.target.write(data)
        elif self._back_is_gone:
            half.source.abort()
        elif is_usable(self._box):
            pulse, self._pulse = self._pulse, b""
            half.target.write(pulse + data if pulse else data)
        elif is_pulse:
            self._pulse = data  # those before it need no answer any more
        else:
            half.source.pause_reading()
            self._do(self._wake(data))

    def is_left(self) -> bool:
        """Whether the caller has closed its end altogether."""
        return is_gone(self.inward.source)

    def ended(self, half: Half) -> None:
        """One direction is over. That is nothing to wake a sandbox for."""
        if half is self.inward and self._back_is_gone:
            half.source.close()
        elif half is self.outward and not self.inward.ended and is_gone(half.source):
            self.abort()  # it has not ended what it said: it is gone
        else:
            super().ended(half)

    def lost(self, half: Half, exc: Exception | None) -> None:
        """One side is gone, and mostly the other goes after it."""
        if half is self.inward:
            if self._work is not None:
                self._work.cancel()
        else:
            self._back_is_gone = True
            self._guest.cuts.discard(self._cut)
            if self._box.state is State.PAUSED and self._work is None and not self.inward.ended:
                self.left()
                half.target.resume_reading()
                self._do(self._sleep())
                return
        super().lost(half, exc)

    def _cut(self) -> None:
        self.outward.source.abort()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = asyncio.create_task(work)

    async def _wake(self, data: bytes) -> None:
        """Wake the sandbox, and tell it what was said meanwhile."""
        try:
            with self._box.use():
                if not self._wakes:
                    await self._going_on()
                await self._awake()
        except RunToolsError as exc:
            log.info("a stream to %s ends: %s", self._box.id, exc)
            self.abort()
            return
        except Exception:
            # The edge of a task that nobody waits for: the caller must not wait for ever.
            log.exception("a stream to %s ends", self._box.id)
            self.abort()
            return
        self._work = None
        self.carry(self.inward, data)
        self.go_on(self.inward)

    async def _awake(self) -> None:
        """Have it awake; where there is no room for it, as soon as there is."""
        while True:
            try:
                await awake(self._box, Why("request", PLATFORM))
            except WaitsForRoom as exc:
                log.info("a stream to %s waits: %s", self._box.id, exc)
            else:
                return

    async def _going_on(self) -> None:
        """Wait until the sandbox goes on, if somebody has it do so.

        Whoever was to see that it is awake may have asked a moment before it was paused.

        Raises:
            Conflict: it sleeps.
        """
        while self._box.state is not State.STOPPED and not is_usable(self._box):
            sleeps = self._box.state is State.PAUSED and self._box.record.operation is None
            try:
                async with asyncio.timeout(_WOKEN_SECONDS if sleeps else None):
                    await self._box.changed()
            except TimeoutError:
                raise Conflict(
                    f"{self._box.id} sleeps, and this stream is not to wake it"
                ) from None

    async def _sleep(self) -> None:
        """Hold the caller as long as the sandbox sleeps, though the way to it is gone."""
        while self._box.state is State.PAUSED:
            await self._box.changed()
        self.inward.source.close()
