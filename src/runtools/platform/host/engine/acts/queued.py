"""A sandbox that waits for room on its host: whoever waits with it is told so, and not kept for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from runtools.errors import CapacityExhausted, WaitsForRoom
from runtools.platform.core.states import Operation, State
from runtools.platform.host.engine.actor import Actor

T = TypeVar("T")

# How long a call waits with a sandbox for room on the host.
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 1.0


def is_queued(box: Actor) -> bool:
    """Whether it waits for room and nothing of it was touched yet."""
    return box.record.operation is Operation.QUEUED


def deadline(patience: float | None = None) -> float:
    """Up to when somebody who comes now waits for room."""
    within = PATIENCE_SECONDS if patience is None else patience
    return asyncio.get_running_loop().time() + within


async def unless_queued(box: Actor, coming: Coroutine[Any, Any, T], until: float) -> T:
    """Wait for what brings it up, as long as that takes; for room on the host only until then.

    Raises:
        WaitsForRoom: it does still, and goes on waiting.
    """
    waiting, clock = asyncio.ensure_future(coming), asyncio.get_running_loop().time
    try:
        while not waiting.done():
            if clock() >= until and is_queued(box):
                raise still_queued(box, WaitsForRoom)
            await asyncio.wait({waiting}, timeout=max(until - clock(), _LOOK_SECONDS))
        return await waiting
    finally:
        waiting.cancel()  # an act that was begun goes on: only nobody waits for it here


def still_queued(
    box: Actor, kind: type[CapacityExhausted] = CapacityExhausted
) -> CapacityExhausted:
    """That it waits for room: at which place, for what, and what can be done."""
    place, lacking = box.latest().queue, box.engine.admission.lacking(box.id)
    said, details = f"{box.id} waits for room on its host", {}
    if place is not None:
        said += f", at place {place.position} of its queue"
        details = place.model_dump(mode="json", by_alias=True)
    wait = place.estimated_wait_seconds if place else None
    hint = "ask again later" if wait is None else f"ask again in some {wait:.0f} s"
    if lacking is not None:
        said, details = f"{said}: {lacking.words}", {**details, **lacking.details}
        hint += f"; {lacking.hint}"
    if box.state is State.PAUSED:
        hint += f"; runtools sandbox pause {box.id} has it wait no more"
    return kind(said, hint=hint, details=details)
