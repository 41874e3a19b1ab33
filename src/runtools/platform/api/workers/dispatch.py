"""Offering runs to workers, and taking them back from those that are gone.

A loop in each api process: it offers what is queued to the workers that are connected here, notes that
these are there still, and offers anew what was driven by one that nobody has heard of for `GRACE_SECONDS`,
or that knows nothing of it. Whatever it believes, a run is driven by one worker: its lease says by whom.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from runtools.platform.api.leftovers import service as leftovers
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.platform import Platform
from runtools.platform.api.runs import log as runs_log
from runtools.platform.api.runs import store as runs
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.api.runs.telling import QUEUE, told
from runtools.platform.api.workers import store
from runtools.platform.api.workers.links import Link
from runtools.platform.core.ports.worker import GRACE_SECONDS, SILENT_SECONDS, Hello
from runtools.platform.core.runs import Status
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.rounds import Rounds

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_AT_ONCE = 100
_UNCANCELLED = timedelta(seconds=10)
_CANCEL_SECONDS = 60.0
"""How long a worker may take to end what is under way: what hangs in it ends without it."""
_GRACE = timedelta(seconds=GRACE_SECONDS)
_SILENT = timedelta(seconds=SILENT_SECONDS)
_KEPT = timedelta(hours=1)


async def loop(platform: Platform) -> None:
    """Offer and take back for ever."""
    began = platform.clock.monotonic()
    looked = float("-inf")
    rounds = Rounds(log, "offering runs")
    with platform.bus.watching(QUEUE) as watch:
        while True:
            with rounds:
                now = platform.clock.monotonic()
                if now - looked > SILENT_SECONDS:
                    # It stood still itself: who spoke meanwhile has not been heard yet.
                    began = now
                if now - looked >= _LOOK_SECONDS:
                    looked = now
                    # Those who were connected when this process began come back first.
                    await look(platform, may_take_back=now - began > GRACE_SECONDS)
                await offer(platform)
            await watch.wait()


async def offer(platform: Platform) -> None:
    """Offer what is queued to whoever has room."""
    if not len(platform.workers):
        return
    now = platform.clock.monotonic()
    for record in await platform.db.read(runs.offerable, _AT_ONCE):
        if not platform.workers.offer(record.id, record.lease, now):
            return


async def look(platform: Platform, *, may_take_back: bool) -> None:
    """Note who is there, tell them what they may have missed, and take back from those who are not."""
    now = platform.clock.now()
    here = platform.workers.heard(platform.clock.monotonic())
    if here:
        await platform.db.write(store.seen, here, now)
    for link in list(platform.workers):
        if link.worker_id in here:  # of a silent one nobody knows what it took elsewhere meanwhile
            await _compare(platform, link)
    if not may_take_back:
        return
    heard = await platform.db.read(store.known)
    present = {*here, *(one for one, at in heard.items() if at >= now - _GRACE)}
    lost = await platform.db.read(runs.driven_but_by, sorted(present), _AT_ONCE)
    for record in lost:
        await take_back(platform, record, until=heard.get(record.worker_id or ""))
    since = now - _UNCANCELLED if present else now
    for record in await platform.db.read(runs.uncancelled, since, _AT_ONCE):
        if record.id not in platform.asking:
            platform.spawn(_drop(platform, record), f"cancelling {record.id}")
    if len(lost) < _AT_ONCE:  # of those that drove the rest it is still to be known until when
        await platform.db.write(store.forget, now - _KEPT)


async def take_back(
    platform: Platform, record: Record, *, lost: bool = True, until: datetime | None = None
) -> None:
    """Offer a run anew, unless somebody else has done so, or it has gone on.

    Args:
        lost: whether its worker is gone without a word, which may be the run's doing.
        until: when that was last heard of; None: just now.
    """
    now = platform.clock.now()

    def act(conn: Transaction) -> Record | None:
        held = runs.unmoved(conn, record)
        return None if held is None else runs_log.requeue(conn, held, now, lost=lost, until=until)

    taken = await platform.db.write(act)
    if taken is None:
        return
    log.info("%s is offered anew: worker %s drives it no more", record.id, record.worker_id)
    if record.token_digest is not None:
        platform.door.forget(record.token_digest)
    told(platform, taken, [])


async def arrived(platform: Platform, hello: Hello) -> None:
    """A worker has connected; what one of its name drove before is offered anew.

    Only then is it noted: when it was last heard of is known until nothing is counted by it any more.
    """
    heard = await platform.db.read(store.heard, hello.worker_id)
    for record in await platform.db.read(runs.driven_by, hello.worker_id):
        lives = hello.drove.get(record.id) == record.lease
        await take_back(platform, record, lost=not lives, until=heard)
    await platform.db.write(store.came, hello.worker_id, platform.clock.now())


async def left(platform: Platform, worker_id: str) -> None:
    """A worker has said that it ends: what it drove is offered anew at once."""
    for record in await platform.db.read(runs.driven_by, worker_id):
        await take_back(platform, record, lost=False)
    await platform.db.write(store.left, worker_id)


async def _compare(platform: Platform, link: Link) -> None:
    """Set right what a worker knows of its runs, and what is believed of it.

    It is told of what another process has appended to their logs. What it was given when it could not hear
    of it any more (its connection broke in that moment) is taken back; what is another's now, or over,
    fills no place of its.
    """
    driving, now = dict(link.driving), platform.clock.monotonic()
    found = await platform.db.read(runs.driven_by, link.worker_id)
    if not platform.workers.is_latest(link):
        return
    for record in found:
        heard = link.heard.get(record.id)
        if heard is not None:
            if record.last_seq > heard or record.cancel_requested:
                link.heard[record.id] = record.last_seq
                link.poke(record.id)
            since = link.cancelling.setdefault(record.id, now) if record.cancel_requested else now
            if now - since > _CANCEL_SECONDS:
                log.warning("worker %s does not cancel %s", link.worker_id, record.id)
                await take_back(platform, record)
        elif record.id not in link.taking and not _is_young(record, platform.clock.now()):
            await take_back(platform, record)
    leases = {record.id: record.lease for record in found}
    for run_id, lease in driving.items():
        if leases.get(run_id) != lease and link.driving.get(run_id) == lease:
            link.lets_go(run_id)


def _is_young(record: Record, now: datetime) -> bool:
    """Whether its worker may have taken it through a connection to another process a moment ago.

    The one that it had here counts as its until it has been silent for so long.
    """
    return record.taken_at is not None and now - record.taken_at <= _SILENT


async def _drop(platform: Platform, record: Record) -> None:
    """Cancel a run for which no worker came, and what it has left running."""
    with platform.about(record.id):
        await leftovers.end_open(platform, record)
        await _dropped(platform, record)


async def _dropped(platform: Platform, record: Record) -> None:
    usual, now = standard(platform.settings), platform.clock.now()

    def act(conn: Transaction) -> tuple[Record, list[Event]] | None:
        held = runs.unmoved(conn, record)
        if held is None:
            return None  # a worker came after all
        grown = runs_log.drop(conn, held, Status.CANCELLED, now, usual)
        return grown.record, grown.fresh

    done = await platform.db.write(act)
    if done is not None:
        told(platform, *done)
