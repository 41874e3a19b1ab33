"""A stream of bytes out of a guest, bounded by what was announced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from runtools.errors import GuestMisbehaved, GuestUnreachable, RunToolsError
from runtools.platform.host.guest.channel import Channel


class Body(AsyncIterator[bytes]):
    """A stream out of a guest. It holds a connection until it is run out or closed."""

    def __init__(
        self, channel: Channel, size: int, done: Callable[[Channel], None], *, exact: bool
    ) -> None:
        self._channel = channel
        self._pieces = channel.body(size)
        self._left = size
        self._exact = exact
        self._done = done
        self._ended = False

    async def __anext__(self) -> bytes:
        """The next piece."""
        if self._ended:
            raise StopAsyncIteration
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._end(whole=True)
            if self._exact and self._left:
                raise GuestMisbehaved("the agent inside sent less than it said") from None
            raise
        except BaseException as exc:
            # After an error that ends the body as it should, the connection is in step.
            whole = isinstance(exc, RunToolsError) and not isinstance(exc, GuestUnreachable)
            self._end(whole=whole)
            raise
        self._left -= len(piece)
        return piece

    async def aclose(self) -> None:
        """Read no more."""
        if not self._ended:
            self._end(whole=False)

    def _end(self, *, whole: bool) -> None:
        self._ended = True
        if not whole:
            self._channel.abort()
        self._done(self._channel)
