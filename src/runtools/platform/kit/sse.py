"""Server-sent events: a stream of named events whose ids let a reader go on where it stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from starlette.types import Scope

from runtools.platform.kit.http import Stream, header, wrong_field

PING_SECONDS = 15.0
PING = b": ping\n\n"
_OPEN = b": open\n\n"


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``data`` is one line of JSON."""

    name: str
    data: bytes
    id: int | str | None = None

    def encode(self) -> bytes:
        """The event on the wire."""
        head = b"" if self.id is None else b"id: %b\n" % str(self.id).encode()
        return b"%bevent: %b\ndata: %b\n\n" % (head, self.name.encode(), self.data)


def resume_point(scope: Scope, after: int | None) -> int | None:
    """After which event to go on: ``Last-Event-ID`` (a browser that reconnects), else ``?after``.

    Raises:
        InvalidRequest: the header is no id of ours.
    """
    given = header(scope, b"last-event-id")
    if given is None:
        return after
    if not given.isdigit() or len(given) > 18:
        raise wrong_field("Last-Event-ID", "not an id of this stream")
    return int(given)


class WrittenStream(Stream):
    """A response of events that are encoded already, several in one piece perhaps, and pings."""

    def __init__(
        self, written: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            _opened(written),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})},
        )


class EventStream(WrittenStream):
    """A response of events, with a comment now and then so that nobody takes silence for death."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        super().__init__(_with_pings(events))


async def _opened(written: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A comment at once, so that the reader learns that it was admitted."""
    async with aclosing(written):
        yield _OPEN
        async for piece in written:
            yield piece


async def _with_pings(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    coming: asyncio.Task[Event] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait((coming,), timeout=PING_SECONDS)
            if not done:
                yield PING
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield event.encode()
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))
        await events.aclose()
