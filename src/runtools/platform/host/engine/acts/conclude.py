"""The end of an act that has done what cannot be undone: written until it holds."""

from __future__ import annotations

import itertools
import logging
from typing import Any

from pydantic import BaseModel

from runtools.platform.core.ports.host import Observed
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.journal import Record
from runtools.platform.host.engine.why import Why
from runtools.platform.kit.clock import Backoff

log = logging.getLogger(__name__)

_LONGEST_SECONDS = 5.0
# What fails so often (some seconds) is told to those who wait for the act.
_TELLING = 6


async def conclude(
    box: Actor,
    why: Why,
    record: Record,
    result: BaseModel | None = None,
    point: str | None = None,
    **detail: Any,
) -> Observed:
    """`Books.finish`, done again until the disk takes it; until then the act is under way.

    To give the act up instead would say of a machine that is saved that it runs, or the other way
    round. Those who wait for it are told after some seconds what holds it up. A host that is going down
    or coming up does not wait: the journal says what was under way, and that is finished afterwards.

    Raises:
        OSError: it could not be written, and the host does not wait.
    """
    box.irrevocable = True
    backoff = Backoff(box.engine.clock, most=_LONGEST_SECONDS)
    for attempt in itertools.count(1):
        try:
            seen = box.books.finish(why, record, result, point, **detail)
        except OSError as exc:
            log.error("%s: the end of an act is not journaled yet: %s", box.id, exc)
            if box.engine.taking_over:
                box.irrevocable = False  # what is tried next is an act of its own
                raise
            if box.engine.stopping:
                raise
            if attempt == _TELLING:
                box.hold_up(str(exc))
        else:
            # Here as well as in `Actor.act`: a start of the host ends acts that it did not begin.
            box.irrevocable, box.held_up = False, None
            return seen
        await backoff.wait()
    raise AssertionError("an end that was neither written nor given up")
