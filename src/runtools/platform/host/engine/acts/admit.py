"""Waiting for room, shown as such: what create and resume do before they touch anything."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.queued import still_queued
from runtools.platform.host.engine.budget import Load, load_of
from runtools.platform.host.engine.why import Why
from runtools.sdk.shapes.sandboxes import QueuePlace


def load(box: Actor, count: int = 1) -> Load:
    """What so many machines of the sandbox's size are counted as."""
    return load_of(box.record.order.sizes.memory_mb, box.engine.settings.memory_factor, count)


async def admitted(box: Actor, why: Why, undo: AsyncExitStack, *, queue: bool = True) -> None:
    """Take a ticket; while it waits, the sandbox is shown as queued with its place.

    Raises:
        CapacityExhausted: there is no room, and waiting is not wanted or cannot help.
    """
    admission = box.engine.admission
    if not queue:
        admission.enter_now(box.id, load(box))
    else:
        await admission.enter(box.id, load(box), lambda place: _show(box, why, place))
    undo.callback(admission.leave, box.id)
    under_way = box.record.under_way
    if under_way is not None and under_way.queued:
        box.books.commit(why, replace(box.record, under_way=replace(under_way, queued=False)))


def _show(box: Actor, why: Why, place: QueuePlace) -> None:
    under_way = box.record.under_way
    if under_way is None:
        return
    if under_way.queued:
        box.books.report(place)
    else:  # and nobody waits for its turn behind that, who may do without
        record = replace(box.record, under_way=replace(under_way, queued=True))
        box.books.commit(why, record, position=place.position)
        box.books.report(place)
        box.turns.refuse(lambda: still_queued(box))
