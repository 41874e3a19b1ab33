"""The connections to one guest agent, and asking again over a new one when one breaks.

A connection is taken for one operation and given back when the conversation on it is in step, else
given up. An idle one may be stale (the agent was restarted, the machine is another): what is asked on
it is then asked again at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from runtools.errors import GuestUnreachable, RunToolsError
from runtools.platform.host.guest.channel import Channel, Connect, Interrupted
from runtools.platform.host.guest.patience import Patience

_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_MAX_IDLE: Final = 4

T = TypeVar("T")


class Pool:
    """Connections to one agent."""

    def __init__(self, connect: Connect, token: str, patience: Patience) -> None:
        self.token = token
        self._patience = patience
        self._connect = connect
        self._idle: list[Channel] = []
        self._used: set[Channel] = set()
        self._closed = False

    async def once(
        self, channel: Channel, act: Callable[[Channel], Awaitable[T]], *, keep: bool = False
    ) -> T:
        """Do something on a channel. It is free again afterwards, or closed; with ``keep`` in use."""
        try:
            result = await act(channel)
        except RunToolsError as exc:
            if isinstance(exc, GuestUnreachable):
                self.give_up(channel)
            else:
                self.give_back(channel)  # an answer like any other
            raise
        except BaseException:
            self.give_up(channel)
            raise
        if not keep:
            self.give_back(channel)
        return result

    async def repeat(self, act: Callable[[Channel], Awaitable[T]], *, keep: bool = False) -> T:
        """Do what can be asked again, until a connection holds for the whole of it.

        Raises:
            Interrupted: for too long none did, or the client was closed.
        """
        clock = asyncio.get_running_loop().time
        since = clock()
        pause = _PAUSE_SECONDS
        while True:
            began: float | None = None
            stale = False
            try:
                channel = await self.take()
                began, stale = clock(), channel.used
                return await self.once(channel, act, keep=keep)
            except Interrupted:
                self.drop_idle()
                now = clock()
                if began is not None and now - began > self._patience.held:
                    since, pause = now, _PAUSE_SECONDS
                if self._closed or now - since > self._patience.away:
                    raise
                if not stale:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)

    async def take(self, *, fresh: bool = False) -> Channel:
        """A greeted channel, an idle one where there is one.

        Raises:
            Interrupted: nobody answers.
        """
        while self._idle and not fresh:
            channel = self._idle.pop()
            if channel.is_open():
                self._used.add(channel)
                return channel
            channel.abort()
        self._check_open()
        try:
            async with asyncio.timeout(self._patience.hello):
                channel = await Channel.open(self._connect, self.token, self._patience)
        except TimeoutError as exc:
            raise Interrupted("the agent inside does not greet") from exc
        self._used.add(channel)
        if self._closed:
            self.give_up(channel)
        self._check_open()
        return channel

    def give_back(self, channel: Channel) -> None:
        """The conversation on it is in step."""
        self._used.discard(channel)
        channel.used = True
        if self._closed or len(self._idle) >= _MAX_IDLE or not channel.is_open():
            channel.abort()
        else:
            self._idle.append(channel)

    def give_up(self, channel: Channel) -> None:
        """Nobody knows where the conversation on it stands."""
        self._used.discard(channel)
        channel.abort()

    def drop_idle(self) -> None:
        """Close what is not in use."""
        idle, self._idle = self._idle, []
        for channel in idle:
            channel.abort()

    def close(self) -> None:
        """Close everything; who waits for an answer gets `Interrupted`."""
        self._closed = True
        self.drop_idle()
        for channel in list(self._used):
            channel.abort()

    def _check_open(self) -> None:
        if self._closed:
            raise Interrupted("the sandbox is no longer spoken to")
