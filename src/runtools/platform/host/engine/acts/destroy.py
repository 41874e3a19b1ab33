"""Destroy: nothing is left but the ledger and a journal that says so."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace

from runtools.platform.core.ports.host import Observed
from runtools.platform.core.states import Act, State
from runtools.platform.host.engine import history, snapshots
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts import end
from runtools.platform.host.engine.places import clear_away
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.why import Why
from runtools.platform.kit.clock import Backoff
from runtools.sdk.shapes.sandboxes import Ending

log = logging.getLogger(__name__)

_LONGEST_SECONDS = 5.0
# What fails once may be over in a moment; what fails so often is told in the ledger.
_TELLING = 3


async def destroy(box: Actor, why: Why) -> Observed:
    """Take the sandbox to `stopped` and remove what it had. Of an ended one the kept disk goes."""
    if box.state is State.STOPPED:
        await forget_disk(box)
        return box.latest()
    # A second machine that an overruled rollback could not remove any more.
    spare = box.record.under_way.spare if box.record.under_way else None
    async with box.act(Act.DESTROY, why, spare=spare):
        reach("destroy.begun")
        # What was begun to be removed is of no use to anybody: there is no giving up any more.
        box.irrevocable = True
        backoff = Backoff(box.engine.clock, most=_LONGEST_SECONDS)
        for attempt in itertools.count(1):
            try:
                return await _end(box, why)
            except Exception as exc:
                # The edge of a loop: whatever fails of an end is done again until it holds.
                log.exception("%s could not be destroyed yet", box.id)
                if box.engine.stopping or box.engine.taking_over:
                    raise
                if attempt == _TELLING:
                    _tell(box, why, str(exc) or type(exc).__name__)
            await backoff.wait()
    raise AssertionError("a destroy that neither ended nor failed")


async def _end(box: Actor, why: Why) -> Observed:
    """Give back all that it has, and commit that; what is gone already is no error."""
    box.vigil.end()
    spare = box.record.under_way.spare if box.record.under_way else None
    for life in (box.record.life, spare):
        if life is not None:
            await end.clear(box, life)
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
    return box.books.finish(why, gone)


def _tell(box: Actor, why: Why, reason: str) -> None:
    """Say in the ledger what keeps it from its end; a disk that does not take that is no reason to stop."""
    try:
        box.books.commit(why, box.record, failed=reason)
    except OSError as exc:
        log.error("%s: the ledger does not say yet what keeps it: %s", box.id, exc)


async def forget_disk(box: Actor) -> None:
    """Remove the disk that was kept of an ended sandbox, and its snapshots."""
    record = box.record
    if not record.keeps_disk:
        return
    await _remove_all(box)
    ending = record.ending and record.ending.model_copy(update={"recoverable_until": None})
    order = record.without_secrets()
    box.books.note(replace(record, life=None, ending=ending, destroyed=True, order=order))
    box.books.report()


async def _remove_all(box: Actor) -> None:
    places = box.engine.places
    history.forget(box.folder)
    await clear_away(*(places.life(box.id, number) for number in places.lives(box.id)))
    for kept in snapshots.of_sandbox(places, box.id):
        await snapshots.drop(box.engine, kept.snapshot_id)
