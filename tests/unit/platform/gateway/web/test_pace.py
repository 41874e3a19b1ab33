"""Who takes nothing, or gives in drops, is told from who is slow."""

from __future__ import annotations

import asyncio
from typing import cast

from runtools.platform.gateway.web import pace
from runtools.platform.gateway.web.pace import Inflow, Outflow


class Transport:
    left = 0

    def get_write_buffer_size(self) -> int:
        return self.left


def test_who_takes_nothing_stalls_and_who_is_slow_does_not() -> None:
    transport = Transport()
    flow = Outflow(cast("asyncio.WriteTransport", transport), 0.0)
    assert not flow.stalls(1000.0)  # nothing waits for it
    flow.written, transport.left = 100_000, 90_000
    assert not flow.stalls(1001.0)
    transport.left = 89_999
    assert not flow.stalls(1100.0)
    flow.written, transport.left = 200_000, 189_999  # more waits, and nothing of it was taken
    assert not flow.stalls(1100.0 + pace.STALL_SECONDS)
    assert flow.stalls(1101.0 + pace.STALL_SECONDS)


def test_a_body_may_pause_but_not_drip() -> None:
    flow = Inflow(0.0)
    flow.came = 10
    assert not flow.drips(pace.BODY_SECONDS - 1, excused=False)
    flow.came = pace.BODY_LEAST
    assert not flow.drips(pace.BODY_SECONDS, excused=False)
    flow.came = pace.BODY_LEAST - 1
    assert not flow.drips(2 * pace.BODY_SECONDS - 1, excused=False)
    assert flow.drips(2 * pace.BODY_SECONDS, excused=False)
    assert not flow.drips(3 * pace.BODY_SECONDS, excused=True)
