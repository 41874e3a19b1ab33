"""The entrance: the Unix socket by which the gateway of the same machine gets streams into sandboxes.

Who may come here is a matter of the socket's owner and mode alone. A caller says where to (`reach_wire`),
is answered, and from then on the bytes are the stream's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, cast

from runtools.errors import HostUnavailable, RunToolsError
from runtools.platform.core.ports import reach_wire
from runtools.platform.core.ports.reach_wire import LENGTH, MAX_ASK
from runtools.platform.host.entering import Entering
from runtools.platform.host.server import bound

log = logging.getLogger(__name__)

_ASK_SECONDS: Final = 10.0


class _Caller(asyncio.Protocol):
    """One connection, until it has become a stream."""

    def __init__(self, entering: Entering, callers: set[_Caller]) -> None:
        self._entering = entering
        self._callers = callers
        self._came = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._callers.add(self)
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(_ASK_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if len(self._came) < LENGTH.size:
            return
        (size,) = LENGTH.unpack_from(self._came)
        if size > MAX_ASK:
            self._transport.abort()
            return
        if len(self._came) < LENGTH.size + size:
            return
        self._patience.cancel()
        self._transport.pause_reading()
        ask, early = self._came[LENGTH.size :][:size], self._came[LENGTH.size + size :]
        self._task = asyncio.create_task(self._open(ask, early))

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()

    def leave(self) -> None:
        """It asks for nothing any more."""
        self._callers.discard(self)
        self._patience.cancel()
        if self._task is not None:
            self._task.cancel()

    def refuse(self, error: RunToolsError) -> None:
        """The answer is an error."""
        self._transport.write(reach_wire.pack_answer(error))
        self._transport.close()

    async def _open(self, ask: bytes, early: bytes) -> None:
        try:
            wanted = reach_wire.parse_ask(ask)
            leave = self._entering.admit(wanted.sandbox_id, wanted.port)
        except RunToolsError as exc:
            self.refuse(exc)
            return
        try:
            await self._join(wanted, early, leave)
        except RunToolsError as exc:
            leave()
            self.refuse(exc)
        except asyncio.CancelledError:
            leave()
            raise
        except Exception as exc:
            # The loop's edge: whatever it is, the caller is told and it is logged.
            leave()
            log.exception("a stream to %s failed", wanted.sandbox_id)
            self.refuse(RunToolsError(f"the host failed: {exc!r}"))

    async def _join(self, wanted: reach_wire.Ask, early: bytes, leave: Callable[[], None]) -> None:
        way = await self._entering.connect(wanted.sandbox_id, wanted.port)
        self._transport.write(reach_wire.pack_answer())
        self._callers.discard(self)
        await self._entering.join(self._transport, early, way, leave, wakes=wanted.wakes)


@contextlib.asynccontextmanager
async def entrance(
    entering: Entering,
    path: Path,
    *,
    uid: int | None = None,
    gid: int | None = None,
    mode: int = 0o600,
) -> AsyncIterator[None]:
    """Let callers in while the body runs; then every stream ends.

    Args:
        entering: opens the streams.
        path: the socket; one that is there from before is replaced.
        uid, gid, mode: who may connect; by default ourselves alone.
    """
    callers: set[_Caller] = set()
    with bound(path, uid=uid, gid=gid, mode=mode) as listening:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: _Caller(entering, callers), sock=listening, backlog=1024
        )
        try:
            yield
        finally:
            server.close()
            for caller in list(callers):
                caller.leave()
                caller.refuse(HostUnavailable("the host part is being stopped"))
            entering.close()
