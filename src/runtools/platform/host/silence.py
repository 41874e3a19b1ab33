"""Why a guest fell silent: what became of its sandbox is told instead, by name.

A sandbox may be paused, go back to a snapshot or end while something goes on in it. Whoever waits for that
hears of it here; and at once where the platform itself puts it to sleep, for nobody need wake it then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtools.errors import (
    GuestUnreachable,
    HistoryChanged,
    SandboxPaused,
    SandboxStopped,
)
from runtools.platform.core.states import Operation, State
from runtools.platform.host.engine import ledger
from runtools.platform.host.engine.actor import Actor, going_down
from runtools.platform.host.engine.acts.resume import is_usable
from runtools.platform.host.engine.journal import Record
from runtools.platform.host.engine.words import why_paused
from runtools.platform.host.guest.channel import is_silence
from runtools.sdk.shapes.sandboxes import LedgerEntry

log = logging.getLogger(__name__)

# A machine that dies takes its connections with it a moment before its end is known; other ends likewise.
_END_SECONDS = 5.0


@asynccontextmanager
async def unless_put_to_sleep(box: Actor) -> AsyncIterator[None]:
    """Go on with a guest until the platform itself pauses its sandbox.

    Raises:
        GuestUnreachable: it did; `what_happened` says why.
    """
    loop, limit = asyncio.get_running_loop(), asyncio.timeout(None)
    asleep = GuestUnreachable(f"{box.id} was put to sleep")
    if box.is_put_to_sleep:
        raise asleep

    def give_up() -> None:
        limit.reschedule(loop.time())

    try:
        async with limit:
            box.callers.add(give_up)
            try:
                yield
            finally:
                box.callers.discard(give_up)
    except TimeoutError as exc:
        if not limit.expired():
            raise
        raise asleep from exc


async def what_happened(
    box: Actor, failure: GuestUnreachable, since: Record | None = None
) -> Exception:
    """What to say in the place of a failure. ``since`` is how the sandbox stood when it was all right."""
    if not is_usable(box):
        await box.settled(_END_SECONDS)
    if box.state is State.RUNNING and not await box.engine.driver.is_live(box.machine()):
        await box.ends_within(_END_SECONDS)
    if box.state is State.STOPPED:
        return stopped(box)
    if since is None or not is_silence(failure):
        return failure
    told = _went_back(box, since) or await _slept(box, since)
    if told is not None and box.engine.stopping:
        return going_down()  # what is asked for again of the next host wakes it
    return told or failure


def stopped(box: Actor) -> SandboxStopped:
    """That a sandbox has ended, and why."""
    reason = box.record.ending.reason if box.record.ending else "it was destroyed"
    return SandboxStopped(
        f"{box.id} has stopped: {reason}", hint=f"runtools sandbox why {box.id} tells more"
    )


def _went_back(box: Actor, since: Record) -> HistoryChanged | None:
    """That it is another machine by now."""
    life, before = box.record.life, since.life
    if life is None or before is None or life.number == before.number:
        return None
    return HistoryChanged(
        f"{box.id} went back to a snapshot meanwhile: what was under way in it is gone",
        hint="do it again, if it is still wanted",
        details={"history": str(life.number)},
    )


async def _slept(box: Actor, since: Record) -> SandboxPaused | None:
    """That it is, was or is being paused."""
    record = box.record
    sleeps = record.state is State.PAUSED or record.operation is Operation.PAUSING
    if not sleeps and record.running_since == since.running_since:
        return None
    entry = await _pause_after(box, since.entry.seq) or record.entry
    goes_on = "" if sleeps else ", and runs again by now"
    hint = "ask again, for a command under the same process id: it goes on"
    if sleeps:
        hint += " when the sandbox does, which that wakes"
    if entry.cause == "disk_low":
        hint = f"make room on the host's disk (runtools df, runtools prune); then {hint}"
    return SandboxPaused(
        f"{box.id} was paused at {entry.at:%Y-%m-%d %H:%M:%S} UTC {why_paused(entry)}{goes_on}: "
        "what was under way in it did not end before",
        hint=hint,
        details={"cause": entry.cause, "actor": entry.actor, "pausedAt": entry.at.isoformat()},
    )


async def _pause_after(box: Actor, seq: int) -> LedgerEntry | None:
    """The entry of the first pause after another entry."""
    try:
        entries = await asyncio.to_thread(ledger.read, box.folder)
    except OSError as exc:
        log.warning("the ledger of %s cannot be read: %s", box.id, exc)
        return None
    return next((one for one in entries if one.seq > seq and one.state == "paused"), None)
