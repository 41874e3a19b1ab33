"""Who takes nothing, or gives in drops, is told from who is slow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

from runtools.platform.gateway.web import pace
from runtools.platform.gateway.web.pace import Inflow, Outflow


class Transport:
    left = 0
    sock: socket.socket | None = None

    def get_extra_info(self, name: str) -> object:
        assert name == "socket"
        return self.sock

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


def test_what_is_taken_of_the_kernels_queue_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reads = socket.create_connection(server.getsockname())
        sends, _ = server.accept()
    with reads, sends:
        reads.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sends.setblocking(False)
        transport = Transport()
        transport.sock = sends
        flow = Outflow(cast("asyncio.WriteTransport", transport), 0.0)
        with contextlib.suppress(BlockingIOError):
            while True:
                flow.written += sends.send(b"x" * 65536)
        queued = flow._queued()
        assert queued > 0
        transport.left = 1000
        flow.written += 1000
        assert not flow.stalls(1.0)
        reads.settimeout(20)
        while flow._queued() == queued:
            reads.recv(65536)
        assert transport.left == 1000  # asyncio has not been told of it
        assert not flow.stalls(2 + pace.STALL_SECONDS)
        # Of what is said last, what waits in the kernel alone is waited for, and not for ever.
        transport.left = 0
        assert not flow.has_all
        assert not flow.stalls(1000.0)
        sends.close()
        assert flow.has_all


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
