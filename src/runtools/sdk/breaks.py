"""Why what came out of a sandbox broke off: asked afterwards, for it can say nothing more itself."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from runtools.errors import (
    Conflict,
    DeadlineExceeded,
    GuestUnreachable,
    HistoryChanged,
    RunToolsError,
    SandboxPaused,
    SandboxStopped,
    Unavailable,
)
from runtools.sdk import shapes, wire
from runtools.sdk.transport import AsyncDownload, AsyncTransport

_AGAIN = "what had come is not the whole: ask again"


async def explained(
    transport: AsyncTransport, sandbox: str, broken: wire.BrokenOff, body: AsyncDownload
) -> RunToolsError:
    """What became of the sandbox meanwhile, or of the platform; else that it broke off, no more."""
    try:
        view = wire.shape(shapes.Sandbox, (await transport.call("GET", sandbox)).data)
        if view.state == "stopped":
            reason = view.ending.reason if view.ending else "nobody knows why"
            return SandboxStopped(
                f"{view.id} has stopped in the middle of this: {reason}",
                hint=f"runtools sandbox why {view.id} tells more",
            )
        return await _what_happened(transport, sandbox, view, _begun(body)) or broken
    except RunToolsError as refusal:
        return beside(broken, refusal)


def beside(broken: wire.BrokenOff, refusal: RunToolsError) -> Unavailable:
    """That it broke off, and what is answered to who asks why, where that may be the reason."""
    if not isinstance(refusal, Unavailable | GuestUnreachable | DeadlineExceeded):
        return broken
    return Unavailable(f"{broken.message}; since then: {refusal.message}", hint=refusal.hint)


def changed(path: str, before: str | None, entry: shapes.FileEntry) -> Conflict | None:
    """That a file is not as large any more as it was; None: it is, or nobody knows."""
    if before is None or before == str(entry.size):
        return None
    return Conflict(
        f"{path} changed while it was read: it has {entry.size} bytes now, and had {before}",
        hint="what had come is not the whole: read it again, or a copy of it",
    )


async def _what_happened(
    transport: AsyncTransport, sandbox: str, view: shapes.Sandbox, begun: datetime | None
) -> Conflict | None:
    before = rolling = last = since = None
    async with aclosing(transport.pages(f"{sandbox}/why", [], 100)) as items:
        async for item in items:
            entry = wire.shape(shapes.LedgerEntry, item)
            is_since = begun is not None and entry.at > begun
            if entry.operation == "rolling_back":
                rolling = entry if is_since else None
            elif "failed" in entry.detail:
                rolling = None
            # What is begun with one that sleeps has a line as well, in the same state.
            if entry.state == "paused" and before != "paused":
                last = entry
                since = since or (entry if is_since else None)
            before = entry.state
    if rolling is not None:
        return HistoryChanged(
            f"{view.id} went back to a snapshot in the middle of this", hint=_AGAIN
        )
    # One that sleeps now was awake for this: if it was not paused since, the last pause is the one.
    paused = since or (last if view.state == "paused" else None)
    if paused is None:
        return None
    return SandboxPaused(
        f"{view.id} was paused in the middle of this, at {paused.at:%Y-%m-%d %H:%M:%S} UTC by "
        f"{paused.actor} ({paused.cause})" + ("" if view.state == "paused" else "; it runs again"),
        hint=_AGAIN,
        details={"cause": paused.cause, "actor": paused.actor, "pausedAt": paused.at.isoformat()},
    )


def _begun(body: AsyncDownload) -> datetime | None:
    """From when on what happened is later than the answer's beginning, by the platform's own clock."""
    try:
        return parsedate_to_datetime(body.header("Date") or "") + timedelta(seconds=1)
    except ValueError:
        return None
