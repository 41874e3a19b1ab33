"""Rollback: a second machine is made from the snapshot beside the first, and then they are swapped.

The present machine is given up only when the new one runs, is renewed and is journaled; until then a
failure or a crash leaves everything as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from runtools.errors import NotFound
from runtools.platform.core.ports.host import Observed
from runtools.platform.core.states import Act, State, check
from runtools.platform.host.engine import durable, snapshots
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts import end
from runtools.platform.host.engine.acts.admit import load
from runtools.platform.host.engine.acts.pause import became_paused, note_processes
from runtools.platform.host.engine.acts.resume import became_running
from runtools.platform.host.engine.acts.room import room
from runtools.platform.host.engine.fitness import check_fit, check_isolation
from runtools.platform.host.engine.journal import Life
from runtools.platform.host.engine.machines import Source, Up, bring_up
from runtools.platform.host.engine.phases import Phases
from runtools.platform.host.engine.places import OVERLAY, clear_away
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.snapshots import Snapshot
from runtools.platform.host.engine.why import Why

log = logging.getLogger(__name__)

SWITCHED = "switched"
"""In the journal's `things`: the spare is the old machine now, to be removed."""


async def rollback(box: Actor, why: Why, snapshot_id: str) -> Observed:
    """Take the sandbox back to a snapshot of its own, into the state (running, paused) it is in.

    Raises:
        CapacityExhausted: there is no room for a second machine beside it.
        IsolationUnavailable: its machine may not run on what this host gives.
    """
    check(Act.ROLLBACK, box.state, box.id)
    check_isolation(box.engine, box.record.order.require_isolation)
    target = _target(box, snapshot_id)
    spare = Life(box.record.lives + 1, box.engine.free_uid(), None, target.token)
    box.books.note(replace(box.record, lives=spare.number))
    with snapshots.pinned(box.engine, snapshot_id):
        async with box.act(Act.ROLLBACK, why, spare=spare), AsyncExitStack() as undo:
            reach("rollback.begun")
            owed = partial(_owed, box, target, box.record.entry.seq)
            overlay = box.engine.places.snapshot(snapshot_id) / OVERLAY
            with await room(box.engine, overlay, 1):
                up = await _second_machine(box, spare, target, undo)
            seen = await _swap(box, why, up, owed, undo)
    if box.state is State.PAUSED:
        box.engine.later(durable.make(box), f"making {box.id} durable")
    return seen


def _target(box: Actor, snapshot_id: str) -> Snapshot:
    mine = snapshots.of_sandbox(box.engine.places, box.id)
    found = next((one for one in mine if one.snapshot_id == snapshot_id), None)
    if found is None:
        raise NotFound(f"{box.id} has no snapshot {snapshot_id} on this host")
    check_fit(f"snapshot {snapshot_id}", found.fingerprint, box.engine, box.machine())
    return found


async def _second_machine(box: Actor, spare: Life, target: Snapshot, undo: AsyncExitStack) -> Up:
    engine, ask = box.engine, load(box)
    if box.state is State.RUNNING:  # it is one sandbox still, with two machines for a moment
        ask = replace(ask, sandboxes=0)
    engine.admission.enter_now(_ticket(box, spare), ask)
    undo.callback(engine.admission.leave, _ticket(box, spare))
    folder = engine.places.snapshot(target.snapshot_id)
    source = Source("fork", folder, folder / OVERLAY, target.token, fresh=False)
    phases = Phases(engine.clock, engine.tracing)
    return await bring_up(box, spare, source, box.books.keep_spare, undo, phases, "rollback")


async def _swap(
    box: Actor, why: Why, up: Up, owed: Callable[[], dict[str, Any]], undo: AsyncExitStack
) -> Observed:
    old, under_way = box.record.life, box.record.under_way
    assert old is not None  # noqa: S101 - the move was checked
    assert under_way is not None  # noqa: S101 - we are in it
    switched = replace(under_way, spare=old, things=(SWITCHED,))
    # A paused sandbox must be saved before the old state is given up.
    fingerprint = dict(box.engine.driver.fingerprint(box.machine(up.life)))
    if box.state is State.PAUSED:
        await note_processes(box, up.guest, box.machine(up.life).folder)
        await box.engine.driver.suspend(box.machine(up.life))
    is_durable = box.state is State.RUNNING  # the state just saved is not
    box.books.note(
        replace(
            box.record,
            life=up.life,
            under_way=switched,
            fingerprint=fingerprint,
            durable=is_durable,
            **owed(),
        )
    )
    # From here on there is no giving up: a destroy finds the old machine in the journal.
    box.irrevocable = True
    # Not before the journal says so: until then the old machine is the sandbox.
    box.vigil.end()
    box.drop_guest()
    undo.pop_all()
    box.guest = up.guest
    reach("rollback.switched")
    try:
        await _drop(box, old)
    finally:
        box.engine.admission.leave(_ticket(box, up.life))
    reach("rollback.dropped")
    return await finish(box, why)


def _owed(box: Actor, target: Snapshot, begun: int) -> dict[str, Any]:
    """What is owed to the new machine: what was to the snapshot's, and what was asked for since this began.

    The rest was about processes of the old one.
    """
    since = {one: at for one, at in box.record.to_end.items() if at >= begun}
    return {
        "to_end": dict.fromkeys(target.to_end, 0) | since,
        "called_off": target.called_off,
    }


async def finish(box: Actor, why: Why) -> Observed:
    """Commit that the swap is done; the sandbox is in the state it was in."""
    if box.state is State.RUNNING:
        return await became_running(box, why)
    return await became_paused(box, why, box.record.fingerprint or {})


def _ticket(box: Actor, spare: Life) -> str:
    """Of the second machine, until there is one again."""
    return f"{box.id} {spare.number}"


async def _drop(box: Actor, life: Life) -> None:
    """Remove the machine that is not the present one any more.

    The rollback is done: what cannot be removed now is removed at the next start.
    """
    try:
        await end.clear(box, life)
        await clear_away(box.engine.places.life(box.id, life.number))
    except Exception:
        # The edge of an act that is done, whatever is left of the old machine.
        log.exception("the former machine of %s could not be removed", box.id)
