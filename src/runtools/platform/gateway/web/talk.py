"""Two connections on which another protocol is spoken: bytes go as they are, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from runtools.platform.core.pulses import is_pulse
from runtools.platform.gateway.rousing import Rousing, Waken
from runtools.platform.gateway.web.pace import Outflow
from runtools.platform.kit.splice import Half, Splice, is_gone

HIGH: Final = 64 << 10
LINGER_SECONDS: Final = 5.0


class Talk(Splice):
    """A visitor and a server inside.

    Args:
        front, back: the two connections.
        over: is called when both are gone.
        waken: see `Rousing`.
        slow: see `Splice`.
    """

    def __init__(
        self,
        front: asyncio.Transport,
        back: asyncio.Transport,
        over: Callable[[], None],
        waken: Waken | None,
        slow: Collection[asyncio.Transport] = (),
    ) -> None:
        super().__init__(front, back, over, slow)
        for transport in (front, back):
            transport.set_write_buffer_limits(high=HIGH)
        self._time = asyncio.get_running_loop().time
        now = self._time()
        self._flows = {self.inward: Outflow(back, now), self.outward: Outflow(front, now)}
        self._closing = now  # since then it is only waited for a goodbye
        self._rousing = Rousing(waken, self._awake, lambda _: self.abort())
        self._ends = False  # the visitor did, while the sandbox was woken

    def limit(self, waken: Waken) -> None:
        """Its org has limits to keep from now on."""
        self._rousing.waken = self._rousing.waken or waken

    def carry(self, half: Half, data: bytes) -> None:
        """Pass on what came."""
        if self._rousing.waken is not None and not is_pulse(data):
            if half is self.outward:
                self._rousing.heard()
            elif self._rousing.holds(data):
                half.source.pause_reading()
                return
        self._pass_on(half, data)

    def ended(self, half: Half) -> None:
        """One direction is over, behind what it said before."""
        if half is self.inward and self._rousing.is_under_way:
            self._ends = True
        else:
            super().ended(half)

    def lost(self, half: Half, exc: Exception | None) -> None:
        """One connection is gone; the other goes after it."""
        self._rousing.cancel()
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

    def _awake(self, held: bytes) -> None:
        self._pass_on(self.inward, held)
        if self._ends:
            super().ended(self.inward)
        elif not self.inward.source.is_closing():
            self.go_on(self.inward)
