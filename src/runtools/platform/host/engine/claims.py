"""Whose a network is that several journals name, when a host starts."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable

from runtools.errors import RunToolsError
from runtools.platform.core.ports.driver import Driver, Slot, VmmFailed
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.journal import Life

log = logging.getLogger(__name__)


async def settle(driver: Driver, boxes: Iterable[Actor]) -> None:
    """Have a network that several journals name be that of the machine that lives in it.

    One that was closed, and of which no disk took that, has been given to another since: whoever
    was about to close it must not do so again. `Network.reclaim` keeps that from happening anew.
    """
    claims: defaultdict[Slot, list[tuple[Actor, Life]]] = defaultdict(list)
    for box in boxes:
        spare = box.record.under_way.spare if box.record.under_way else None
        for life in (box.record.life, spare):
            if life is not None and life.slot is not None:
                claims[life.slot].append((box, life))
    for slot, claimants in claims.items():
        for box, life in claimants if len(claimants) > 1 else ():
            if not await _lives(driver, box, life):
                log.warning("%s names the network %d, which another has", box.id, slot.index)
                box.books.forget_slot(slot)


async def _lives(driver: Driver, box: Actor, life: Life) -> bool:
    try:
        return await driver.is_live(box.machine(life))
    except (RunToolsError, VmmFailed, OSError) as exc:
        log.error("whether %s lives cannot be told: %s", box.id, exc)
        return False
