"""A run's stream of events, told in the language of a front end as it comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Literal

from runtools.platform.api.frontends import ag_ui, ai_sdk
from runtools.platform.api.frontends.telling import Teller
from runtools.platform.kit.sse import PING
from runtools.sdk.lines import one_line
from runtools.sdk.shapes.runs import RunEvent

Format = Literal["events", "ai-sdk", "ag-ui"]
"""``events``: our own."""

_LOOK_SECONDS: Final = 0.5
_ENDS: Final[dict[Format, bytes]] = {"events": b"", "ai-sdk": b"data: [DONE]\n\n", "ag-ui": b""}


@dataclass(frozen=True, slots=True)
class Before:
    """What is known when a stream begins.

    Attributes:
        opened: what the run had asked of a person, or of the front end, before the event that the stream
            begins after, and was not answered by then.
        carried_out: the ids of all calls of the front end that have a result by now.
    """

    opened: Sequence[RunEvent]
    carried_out: Collection[str]


def teller(kind: Format, run_id: str, thread_id: str, calls: Collection[str]) -> Teller | None:
    """Who tells of a run; None: nobody has to. ``calls``: those that were told before its stream begins."""
    if kind == "ai-sdk":
        return ai_sdk.Chunks(run_id, calls=calls)
    return ag_ui.Events(thread_id, run_id) if kind == "ag-ui" else None


def headers(kind: Format) -> dict[str, str]:
    """What the answer must bear for the front end to know it."""
    return ai_sdk.HEADERS if kind == "ai-sdk" else {}


async def translated(
    kind: Format,
    tells: Teller,
    written: AsyncGenerator[bytes, None],
    after: int,
    waits: Callable[[], Awaitable[int | None]],
    before: Callable[[], Awaitable[Before]],
) -> AsyncGenerator[bytes, None]:
    """The stream in another language; it ends too where the run waits for a person, or for the front end.

    Args:
        kind: which language.
        tells: who speaks it.
        written: the events as they are written on a stream of our own.
        after: which of them it begins after.
        waits: where the run waits for either now, the number of its last event.
        before: what is known when it begins.
    """
    asked: set[str] = set()
    known = await before()
    tells.know(known.carried_out)
    for event in known.opened:
        asked.add(event.data["callId"])
        tells.recall(event)
    # What waits for the next piece is let go of before the stream that it waits for.
    async with aclosing(written), aclosing(_at_times(written)) as pieces:
        yield _frames(tells.begin())
        async for piece in pieces:
            if piece == PING:
                yield PING
                continue
            for event in _events(piece):
                after = after if event.seq is None else event.seq
                if event.type == "approval-requested" or event.data.get("front"):
                    asked.add(event.data["callId"])
                elif event.type in ("approval-resolved", "tool-result"):
                    asked.discard(event.data["callId"])
                yield _frames(tells.of(event))
            # It may have let go already while what it did last is on its way here.
            if asked and (last := await waits()) is not None and after >= last:
                yield _frames(tells.pause())
                break
    yield _ENDS[kind]


async def _at_times(written: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """What comes, and nothing now and then where nothing does: waiting is no event."""
    coming: asyncio.Task[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(written))
            done, _ = await asyncio.wait((coming,), timeout=_LOOK_SECONDS)
            if done:
                piece, coming = coming.result(), None
                yield piece
            else:
                yield b""
    except StopAsyncIteration:
        return
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))


def _events(piece: bytes) -> Iterator[RunEvent]:
    for block in piece.split(b"\n\n"):
        for line in block.split(b"\n"):
            if line.startswith(b"data: "):
                yield RunEvent.model_validate_json(line.removeprefix(b"data: "))


def _frames(said: Iterable[dict[str, Any]]) -> bytes:
    lines = (one_line(json.dumps(one, ensure_ascii=False)) for one in said)
    return b"".join(b"data: %b\n\n" % line.encode() for line in lines)
