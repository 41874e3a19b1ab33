"""Following a host's reports: for ever, from where the last process stopped.

A report and the place it stood at are written in one transaction, so each is taken in exactly once
whatever is killed when.
"""

from __future__ import annotations

import logging
from collections import Counter

from runtools.errors import RunToolsError
from runtools.platform.api.hosts import store
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.sandboxes.observe import observe
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.usage import store as usage
from runtools.platform.api.webhooks import store as webhooks
from runtools.platform.core.ports.host import Observed
from runtools.platform.kit.db import Transaction

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
# How often a report is tried before it is passed over: it fits as little as ever, others wait behind it.
_MOST_TRIES = 5


async def follow(platform: Platform, host_id: str) -> None:
    """Take in every report of the host until cancelled."""
    pause = _FIRST_PAUSE
    tries: Counter[tuple[int, int]] = Counter()
    while True:
        try:
            await platform.db.write(store.enrol, host_id)
            epoch, seq = await platform.db.read(store.position, host_id)
            async for observed in platform.hosts.port(host_id).reports(epoch, seq):
                platform.away.discard(host_id)
                await _take_in_or_over(platform, host_id, observed, tries)
                tries.clear()
                pause = _FIRST_PAUSE
        except RunToolsError as error:
            log.debug("host %s: %s", host_id, error)
        except Exception:
            # The edge of a loop that must not end: whatever one report did, the next is read.
            log.exception("reports of host %s", host_id)
        platform.away.add(host_id)
        await platform.clock.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _take_in_or_over(
    platform: Platform, host_id: str, observed: Observed, tries: Counter[tuple[int, int]]
) -> None:
    """One report, or a word in the log that it was passed over; a database that is away is no reason to.

    Raises:
        Exception: it was not taken in, this time.
    """
    place = (observed.epoch, observed.seq)
    try:
        await take_in(platform, host_id, observed)
    except RunToolsError:
        raise
    except Exception:
        tries[place] += 1
        if tries[place] < _MOST_TRIES:
            raise
        log.exception(
            "report %d/%d of host %s, that %s is %s, is passed over: it cannot be taken in",
            *(*place, host_id, observed.sandbox_id, observed.state),
        )
        platform.meters.passed_over()
        await _count(platform, observed)
        await platform.db.write(_pass_over, host_id, observed)


async def take_in(platform: Platform, host_id: str, observed: Observed) -> None:
    """One report becomes a row and a ledger line, and everybody who waits for it is woken."""
    record = await platform.db.write(_write, host_id, observed)
    reach("api.report.taken")
    if record is None:
        return  # a stray: see there
    platform.bus.signal(record.id, record.org_id, webhooks.TOPIC)


def _write(conn: Transaction, host_id: str, observed: Observed) -> Record | None:
    record = observe(conn, observed)
    store.advance(conn, host_id, observed.epoch, observed.seq)
    return record


async def _count(platform: Platform, observed: Observed) -> None:
    """How long its sandbox ran is known by this report alone, and is counted where that can be written."""
    try:
        await platform.db.write(_counted, observed)
    except RunToolsError:
        raise
    except Exception:
        # It is for a report that could not be taken in: what fails here, too, holds up none after it.
        log.exception("what %s used is not exact from here on", observed.sandbox_id)


def _counted(conn: Transaction, observed: Observed) -> None:
    if sandboxes.locked(conn, observed.sandbox_id) is not None:
        place = (observed.epoch, observed.seq)
        usage.moved(conn, observed.sandbox_id, place, observed.at, observed.state)


def _pass_over(conn: Transaction, host_id: str, observed: Observed) -> None:
    """Its sandbox is asked for instead, whatever is killed when."""
    sandboxes.miss(conn, observed.sandbox_id, (observed.epoch, observed.seq))
    store.advance(conn, host_id, observed.epoch, observed.seq)
