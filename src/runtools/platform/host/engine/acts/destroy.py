"""Destroy: nothing is left but the ledger and a journal that says so."""

from __future__ import annotations

from dataclasses import replace

from runtools.platform.core.ports.host import Observed
from runtools.platform.core.states import Act, State
from runtools.platform.host.engine import history, snapshots
from runtools.platform.host.engine.actor import Actor, Why
from runtools.platform.host.engine.acts import end
from runtools.platform.host.engine.places import clear_away
from runtools.platform.host.engine.points import reach
from runtools.sdk.shapes.sandboxes import Ending


async def destroy(box: Actor, why: Why) -> Observed:
    """Take the sandbox to `stopped` and remove what it had. Of an ended one the kept disk goes."""
    if box.state is State.STOPPED:
        await forget_disk(box)
        return box.latest()
    async with box.act(Act.DESTROY, why):
        reach("destroy.begun")
        box.unwatch()
        if box.record.life is not None:
            await end.clear(box, box.record.life)
        reach("destroy.killed")
        await _remove_all(box)
        reach("destroy.removed")
        box.engine.admission.leave(box.id)
        gone = replace(
            box.record,
            state=State.STOPPED,
            life=None,
            destroyed=True,
            durable=True,
            ending=Ending(cause=why.cause, reason=f"destroyed by {why.actor}"),
            stopped_at=box.engine.clock.now(),
            order=box.record.without_secrets(),
        )
        return box.finish(why, gone)


async def forget_disk(box: Actor) -> None:
    """Remove the disk that was kept of an ended sandbox, and its snapshots."""
    record = box.record
    if not record.keeps_disk:
        return
    await _remove_all(box)
    ending = record.ending and record.ending.model_copy(update={"recoverable_until": None})
    order = record.without_secrets()
    box.note(replace(record, life=None, ending=ending, destroyed=True, order=order))
    box.report()


async def _remove_all(box: Actor) -> None:
    places = box.engine.places
    history.forget(box.folder)
    await clear_away(*(places.life(box.id, number) for number in places.lives(box.id)))
    for kept in snapshots.of_sandbox(places, box.id):
        await snapshots.drop(box.engine, kept.snapshot_id)
