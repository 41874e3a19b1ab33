"""Ends that nobody asked for: a VMM that died by itself, a start that failed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from runtools.errors import RunToolsError, Unavailable
from runtools.platform.core.ports.driver import Exit
from runtools.platform.core.states import State
from runtools.platform.host.disk.trees import remove
from runtools.platform.host.engine import pressure
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.conclude import conclude
from runtools.platform.host.engine.acts.pause import found_saved, is_saved
from runtools.platform.host.engine.journal import Life
from runtools.platform.host.engine.places import clear_away
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.engine.words import how_it_ended, tail
from runtools.platform.kit.files import write_atomic
from runtools.sdk.shapes.sandboxes import Cause, Ending

log = logging.getLogger(__name__)

# What is kept of the console of an ended machine, for `logs` after its death.
CONSOLE_LINES = 1000
CONSOLE_FILE = "console.log"


async def died(box: Actor, number: int, seen: Exit) -> None:
    """The VMM of the sandbox's n-th machine is gone: say why, keep the disk, give back the rest.

    One that lies saved has not died: that its pause came to an end could not be written down so far.
    """
    record = box.record
    if record.life is None or record.life.number != number or record.state is not State.RUNNING:
        return
    if await box.engine.driver.is_live(box.machine()):
        return  # found saved and resumed, before this had its turn
    if await is_saved(box):
        # One that this start of the host never got hold of was saved by it, or before it.
        cause: Cause = "host_restart" if box.guest is None else "vmm_exit"
        await found_saved(
            box, Why(cause, PLATFORM), reason="its VMM is gone, and it lies saved whole"
        )
        return
    await ended(box, "vmm_exit", how_it_ended(seen), seen)


async def ended(box: Actor, cause: Cause, reason: str, seen: Exit) -> None:
    """Take the sandbox to `stopped`; its disk stays for recovery."""
    engine, record = box.engine, box.record
    life = record.life
    assert life is not None  # noqa: S101 - only what ran can end
    reach("end.seen")
    box.vigil.end()
    said = pressure.words(seen.out_of_memory, box.stats, engine.clock.now())
    await keep_console(box)
    await clear(box, life)
    await clear_away(engine.places.life(box.id, life.number) / "vmm")
    engine.admission.leave(box.id)
    reach("end.cleared")
    now = engine.clock.now()
    ending = Ending(
        cause=cause,
        reason=reason,
        exit_code=seen.code,
        signal=seen.signal,
        console_tail=tail(seen.console_tail),
        memory_pressure=said,
        recoverable_until=now + timedelta(hours=engine.settings.recover_hours),
    )
    stopped = replace(
        record,
        state=State.STOPPED,
        under_way=None,
        order=record.without_secrets(),
        life=replace(life, slot=None, token=""),
        ending=ending,
        stopped_at=now,
        durable=True,
    )
    box.books.commit(Why(cause, PLATFORM), stopped, reason=reason)
    engine.meters.ended(cause)


async def start_failed(box: Actor, why: Why, failure: Exception) -> RunToolsError:
    """Take a sandbox that never ran to `stopped`; returns what its creator is told."""
    engine = box.engine
    reason = str(failure) or type(failure).__name__
    for number in engine.places.lives(box.id):
        remove(engine.places.life(box.id, number))
    engine.admission.leave(box.id)
    stopped = replace(
        box.record,
        state=State.STOPPED,
        order=box.record.without_secrets(),
        under_way=None,
        life=None,
        ending=Ending(cause="start_failed", reason=reason),
        stopped_at=engine.clock.now(),
    )
    await conclude(box, Why("start_failed", why.actor), stopped, reason=reason)
    engine.meters.not_created()
    if isinstance(failure, RunToolsError):
        return failure
    return Unavailable(
        f"{box.id} did not start: {reason}",
        hint=f"runtools sandbox why {box.id} tells more",
    )


async def clear(box: Actor, life: Life) -> None:
    """Give back the machine and the network of a life; what is gone already is no error."""
    if box.record.life is not None and box.record.life.number == life.number:
        box.drop_guest()
    await box.engine.driver.kill(box.machine(life))
    if life.slot is not None:
        await box.engine.network.close(life.slot)
        box.books.forget_slot(life.slot)


async def keep_console(box: Actor) -> None:
    """Put the console's end beside the ledger, where it outlives the machine's folder.

    Where there is no room for it the end goes on without it.
    """
    try:
        lines = await box.engine.driver.console(box.machine(), CONSOLE_LINES)
        if lines:
            data = "\n".join(lines).encode(errors="replace")
            write_atomic(box.folder / CONSOLE_FILE, data, durable=False)
    except OSError as exc:
        log.error("the console of %s could not be kept: %s", box.id, exc)


async def console(box: Actor, lines: int) -> list[str]:
    """The last lines of the console, of a living machine or an ended one."""
    if box.state is State.STOPPED or box.record.life is None:
        kept: Path = box.folder / CONSOLE_FILE
        if not kept.exists():
            return []
        text = await asyncio.to_thread(kept.read_text, errors="replace")
        return text.splitlines()[-lines:]
    return await box.engine.driver.console(box.machine(), lines)
