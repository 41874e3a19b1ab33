"""Resume, and waking: what an exec or a file operation does first when it finds a paused sandbox."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from runtools.errors import HostUnavailable, SandboxStopped, Unavailable
from runtools.platform.core.ports.driver import Exit, VmmFailed
from runtools.platform.core.ports.host import Observed
from runtools.platform.core.states import Act, Operation, State, is_settled
from runtools.platform.host.engine import durable, known
from runtools.platform.host.engine.actor import Actor, held_up
from runtools.platform.host.engine.acts import end
from runtools.platform.host.engine.acts.admit import admitted
from runtools.platform.host.engine.acts.conclude import conclude
from runtools.platform.host.engine.acts.queued import deadline, unless_queued
from runtools.platform.host.engine.fitness import check_fit, check_isolation
from runtools.platform.host.engine.machines import identity_of
from runtools.platform.host.engine.meeting import RESTORED_SECONDS, client, meet
from runtools.platform.host.engine.phases import Phases
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.why import Why
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.kit.process import CommandFailed

log = logging.getLogger(__name__)

# The sandbox stays usable by execs and file operations while these are under way.
_HARMLESS = {None, Operation.SNAPSHOTTING, Operation.FORKING}


async def resume(box: Actor, why: Why) -> Observed:
    """Take the sandbox to `running`. When it fails it is paused as before."""
    if is_settled(Act.RESUME, box.state):
        return box.latest()
    engine = box.engine
    async with box.act(Act.RESUME, why), AsyncExitStack() as undo:
        phases = Phases(engine.clock, engine.tracing)
        check_isolation(engine, box.record.order.require_isolation)
        if box.record.fingerprint is not None:
            saved, way_out = box.record.fingerprint, f"runtools sandbox recover {box.id}"
            hint = f"go back to what it was saved with, or boot its disk as a new one: {way_out}"
            check_fit(f"the saved state of {box.id}", saved, engine, box.machine(), hint)
        await admitted(box, why, undo)
        phases.mark("queue")
        engine.meters.waited(phases.timings().queue_ms / 1000)
        reach("resume.begun")
        await _connect_network(box)
        phases.mark("network")
        reach("resume.network")
        await _restored(box)
        phases.mark("restore")
        reach("resume.started")
        undo.push_async_callback(back_to_sleep, box)
        await greet(box, phases)
        reach("resume.renewed")
        known.forget(box.machine().folder)
        undo.pop_all()
        seen = await became_running(box, why, timings=phases.timings().model_dump())
    reach("resume.reported")
    return seen


async def _restored(box: Actor) -> None:
    """Have the driver go on. When that fails the state is whole, or it is used up: that is an end."""
    driver, machine = box.engine.driver, box.machine()
    try:
        await driver.resume(machine)
    except VmmFailed as failure:
        try:
            await driver.suspend(machine)
        except VmmFailed:
            reason = f"it could not go on, and its saved state is used up: {failure}"
            await end.ended(box, "vmm_exit", reason, Exit(None, None))
        raise


async def greet(box: Actor, phases: Phases) -> None:
    """Set the clock and reseed the entropy of a machine that stood still, before anybody gets it."""
    life = box.record.life
    assert life is not None  # noqa: S101 - acts check the state
    identity = identity_of(box, fresh=False)
    # The old client, where there is one: its connections are alive, execs wait on some of them.
    if box.guest is None:
        org_id = box.record.order.org_id
        box.guest = client(box.engine, org_id, box.machine(), life.token, phases.connected)
    await meet(box.engine, box.machine(), box.guest, identity, RESTORED_SECONDS)
    phases.mark("first_byte")


async def became_running(box: Actor, why: Why, **detail: Any) -> Observed:
    """Commit that it runs and was renewed. There is no way back: it may have worked already."""
    engine = box.engine
    running = replace(
        box.record,
        state=State.RUNNING,
        durable=True,
        isolation=engine.capabilities.isolation,
        running_since=engine.clock.now(),
        paused_at=None,
    )
    seen = await conclude(box, why, running, **detail)
    box.touch()
    box.is_put_to_sleep = False
    box.vigil.begin()
    return seen


def is_usable(box: Actor) -> bool:
    """Whether what goes on inside can be asked for now."""
    return box.state is State.RUNNING and box.record.operation in _HARMLESS


async def awake(box: Actor, why: Why) -> GuestClient:
    """The guest of a running sandbox; a paused one is resumed first, a starting one waited for.

    Raises:
        SandboxStopped: it has ended.
        HostUnavailable: it runs, but this host could not take it over at its start.
        Unavailable: an act is under way whose end cannot be written down.
        WaitsForRoom: it does, on its host, and has not got it in a while.
    """
    until = deadline()
    while True:
        if box.state is State.STOPPED:
            raise SandboxStopped(
                f"{box.id} has stopped",
                hint=f"runtools sandbox why {box.id} tells what ended it",
            )
        if is_usable(box):
            if box.guest is None:
                raise HostUnavailable(
                    f"{box.id} could not be adopted; the host's log says why",
                    hint=f"runtools sandbox pause {box.id}, then resume it: that connects it anew",
                )
            return box.guest
        if box.held_up is not None:
            raise held_up(box, Unavailable)
        if box.state is State.CREATING:
            await unless_queued(box, box.changed(), until)
        else:
            going_on = box.perform(lambda: resume(box, why), asked=True, for_room=True)
            await unless_queued(box, going_on, until)


async def _connect_network(box: Actor) -> None:
    life = box.record.life
    assert life is not None  # noqa: S101 - acts check the state
    if life.slot is not None:
        return
    slot = await box.engine.network.open(box.record.order.policy, box.refusals.add)
    try:
        box.books.keep_life(replace(life, slot=slot))
    except OSError:  # no journal has it: nobody else would close it
        await box.engine.network.close(slot)
        raise


def _saved_anew(box: Actor) -> None:
    """Say of the state that it is not written through, whatever the one that is used up was."""
    record = replace(box.record, durable=False, paused_at=box.engine.clock.now())
    try:
        box.books.note(record)
    except OSError as exc:
        log.error("%s: that it was saved again is not journaled yet: %s", box.id, exc)
        box.books.record = record  # it is, with the end of the act
    box.engine.later(durable.make(box), f"making {box.id} durable")


async def back_to_sleep(box: Actor) -> None:
    """Save again what was resumed but could not be handed out: the state was used up."""
    box.drop_guest()
    try:
        await box.engine.driver.suspend(box.machine())
    except (VmmFailed, OSError, CommandFailed) as exc:
        log.error("%s could not be put back to sleep: %s", box.id, exc)
        box.vigil.begin()  # its VMM is gone: the watch brings it to its end
        box.books.note(replace(box.record, state=State.RUNNING))
    else:
        _saved_anew(box)
    known.forget(box.machine().folder)
