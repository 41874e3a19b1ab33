"""Two connections on which another protocol is spoken: bytes go as they are, in both directions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from runtools.errors import RunToolsError
from runtools.platform.core.pulses import is_pulse
from runtools.platform.gateway.web.pace import Outflow
from runtools.platform.kit.splice import Half, Splice, is_gone

log = logging.getLogger(__name__)

HIGH: Final = 64 << 10
QUIET_SECONDS: Final = 0.5
LINGER_SECONDS: Final = 5.0


class Talk(Splice):
    """A visitor and a server inside.

    Args:
        front, back: the two connections.
        over: is called when both are gone.
        waken: has the sandbox awake before it is told something after a silence, in which it may have
            gone to sleep; None: what it is told wakes it.
        slow: see `Splice`.
    """

    def __init__(
        self,
        front: asyncio.Transport,
        back: asyncio.Transport,
        over: Callable[[], None],
        waken: Callable[[], Awaitable[None]] | None,
        slow: Collection[asyncio.Transport] = (),
    ) -> None:
        super().__init__(front, back, over, slow)
        for transport in (front, back):
            transport.set_write_buffer_limits(high=HIGH)
        self._time = asyncio.get_running_loop().time
        now = self._time()
        self._flows = {self.inward: Outflow(back, now), self.outward: Outflow(front, now)}
        self._waken = waken
        self._moved = now  # something, in either direction
        self._closing = now  # since then it is only waited for a goodbye
        self._waking: asyncio.Task[None] | None = None
        self._held = b""  # came while it was woken
        self._ends = False  # likewise

    def carry(self, half: Half, data: bytes) -> None:
        """Pass on what came."""
        if self._waken is not None and not is_pulse(data):
            before, self._moved = self._moved, self._time()
            if half is self.inward:
                if self._waking is None and self._moved - before > QUIET_SECONDS:
                    self._waking = asyncio.create_task(self._wake(self._waken))
                if self._waking is not None:
                    half.source.pause_reading()
                    self._held += data
                    return
        self._pass_on(half, data)

    def ended(self, half: Half) -> None:
        """One direction is over, behind what it said before."""
        if half is self.inward and self._waking is not None:
            self._ends = True
        else:
            super().ended(half)

    def lost(self, half: Half, exc: Exception | None) -> None:
        """One connection is gone; the other goes after it."""
        if self._waking is not None:
            self._waking.cancel()
        super().lost(half, exc)

    def look(self, now: float) -> None:
        """Break off where one side takes nothing any more, or is gone."""
        stalled = [flow.stalls(now) for flow in self._flows.values()]
        if any(stalled) or any(self._is_left(half) for half in self._flows) or self._lingers(now):
            self.abort()

    def _is_left(self, half: Half) -> bool:
        return half.ended and not half.source.is_closing() and is_gone(half.source)

    def _lingers(self, now: float) -> bool:
        """Whether one is closing that has all there is for it: of TLS, its goodbye is waited for."""
        closing = [flow for half, flow in self._flows.items() if half.target.is_closing()]
        if not closing or not all(flow.has_all for flow in closing):
            self._closing = now
        return now - self._closing > LINGER_SECONDS

    def _pass_on(self, half: Half, data: bytes) -> None:
        self._flows[half].written += len(data)
        half.target.write(data)

    async def _wake(self, waken: Callable[[], Awaitable[None]]) -> None:
        try:
            await waken()
        except RunToolsError as exc:
            log.info("a connection that stayed open ends: %s", exc)
            self.abort()
            return
        except Exception:
            # The edge of a task that nobody waits for: the visitor must not wait for ever.
            log.exception("a connection that stayed open ends")
            self.abort()
            return
        held, self._held, self._waking = self._held, b"", None
        self._moved = self._time()
        self._pass_on(self.inward, held)
        if self._ends:
            super().ended(self.inward)
        elif not self.inward.source.is_closing():
            self.go_on(self.inward)
