"""Pause: the machine's state goes to disk, its memory and its place go back to the host.

The network is kept for a while, because a sandbox that is resumed soon finds its connections alive;
`release` closes it later.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtools.errors import HostUnavailable, RunToolsError
from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.core.ports.host import Observed
from runtools.platform.core.states import Act, State, is_settled
from runtools.platform.host.engine import durable, known
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.conclude import conclude
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.guest.client import GuestClient

log = logging.getLogger(__name__)

_ASKED_SECONDS = 1.0


async def pause(box: Actor, why: Why) -> Observed:
    """Take the sandbox to `paused`. When it fails the sandbox runs on.

    Raises:
        HostUnavailable: it is paused, but what a restart cut off there is yet to be gone on with.
    """
    if is_settled(Act.PAUSE, box.state):
        if box.record.under_way is not None:
            raise HostUnavailable(
                f"{box.id} is paused, but its host has not taken it over yet since it restarted",
                hint="the host's log says why; it is tried again, and so is the pause",
            )
        return box.latest()
    async with box.act(Act.PAUSE, why):
        reach("pause.begun")
        fingerprint = dict(box.engine.driver.fingerprint(box.machine()))
        known.forget(box.machine().folder)
        if box.guest is not None:
            await note_processes(box, box.guest, box.machine().folder)
        box.vigil.end()
        try:
            await box.engine.driver.suspend(box.machine())
        except BaseException:
            box.vigil.begin()  # it runs on, or is gone: then the watch says so
            known.forget(box.machine().folder)
            raise
        reach("pause.saved")
        if why.actor == PLATFORM:
            box.put_to_sleep()
        seen = await became_paused(box, why, fingerprint)
        reach("pause.journaled")
    box.engine.later(durable.make(box), f"making {box.id} durable")
    return seen


async def note_processes(box: Actor, guest: GuestClient, folder: Path) -> None:
    """Write down how the processes inside stand, for those who ask while it is paused.

    A guest that does not answer at once is paused all the same.
    """
    try:
        async with asyncio.timeout(_ASKED_SECONDS):
            found = await guest.processes.list()
        known.keep(folder, found)
    except (RunToolsError, TimeoutError, OSError) as exc:
        log.warning("the processes of %s are not known while it is paused: %s", box.id, exc)


async def became_paused(
    box: Actor, why: Why, fingerprint: dict[str, str], **detail: Any
) -> Observed:
    """Commit that the state is saved. There is no way back: the VMM is gone."""
    box.engine.admission.leave(box.id)
    paused = replace(
        box.record,
        state=State.PAUSED,
        durable=False,
        fingerprint=fingerprint,
        paused_at=box.engine.clock.now(),
        running_since=None,
    )
    return await conclude(box, why, paused, **detail)


async def is_saved(box: Actor) -> bool:
    """Whether the machine's state is saved completely; a live one is saved now."""
    try:
        await box.engine.driver.suspend(box.machine())
    except VmmFailed:
        return False
    return True


async def found_saved(box: Actor, why: Why, **detail: Any) -> None:
    """Commit that a machine without a VMM is saved, whatever the journal has said of it so far.

    Its network goes: nobody knows how that stands, and a resume makes it another.
    """
    fingerprint = dict(box.engine.driver.fingerprint(box.machine()))
    await became_paused(box, why, fingerprint, **detail)
    box.engine.later(durable.make(box), f"making {box.id} durable")
    life = box.record.life
    try:
        await release(box)
    except (RunToolsError, OSError) as exc:
        log.error("what is left of the network of %s could not be removed: %s", box.id, exc)
        if life is not None and life.slot is not None:
            box.books.forget_slot(life.slot)


async def pause_if_idle(box: Actor, why: Why, touched: float) -> None:
    """Pause, unless it was used since the decision."""
    if box.state is State.RUNNING and box.uses == box.holds == 0 and box.touched == touched:
        await pause(box, why)


async def release(box: Actor) -> None:
    """Give the network of a paused sandbox back."""
    life = box.record.life
    if box.state is not State.PAUSED or life is None or life.slot is None:
        return
    box.drop_guest()
    await box.engine.network.close(life.slot)
    box.books.forget_slot(life.slot)
    box.books.note(box.record)
