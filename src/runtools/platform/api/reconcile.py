"""The loop that compares what is wanted with what is seen, and repairs.

It asks again, with the same ids, for what was written down and never taken up: births, pauses, resumes,
ends, snapshots, builds, deploys. What this process is asking at the moment it leaves alone, and also what
is younger than a few seconds, for another process may be at it.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

from runtools.errors import HostUnavailable, NotFound, RunToolsError, Unavailable
from runtools.platform.api.audit import store as audit
from runtools.platform.api.deploys import store as deploy_store
from runtools.platform.api.deploys import work
from runtools.platform.api.dev_urls import store as dev_urls
from runtools.platform.api.guests import store as guests
from runtools.platform.api.hosts import service as hosts
from runtools.platform.api.hosts import store as host_store
from runtools.platform.api.hosts import strays
from runtools.platform.api.idempotency import store as idempotency
from runtools.platform.api.invitations import store as invitations
from runtools.platform.api.keys import store as keys
from runtools.platform.api.leftovers import service as leftovers
from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes import acts, births, egress, observe, store
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.snapshots import service as keeping
from runtools.platform.api.snapshots import store as snapshots
from runtools.platform.api.templates import service as templates
from runtools.platform.api.templates import store as template_store
from runtools.platform.api.templates.store import Version
from runtools.platform.api.webhooks import store as webhooks
from runtools.platform.core.ports.host import Observed
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.rounds import Rounds

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
YOUNG = timedelta(seconds=3)
SWEEP_EVERY = 30
REMEMBERED = timedelta(hours=24)
_BATCH = 100


async def loop(platform: Platform) -> None:
    """Repair for ever."""
    first = True
    rounds = 0
    edge = Rounds(log, "reconciling")
    asked: set[tuple[str, int, int | None]] = set()
    while True:
        with edge:
            # What an earlier process of ours left open is not young: nobody is at it.
            await repair(platform, timedelta(0) if first else YOUNG)
            await reach_out(platform)
            await deploy_on(platform)
            await find_lost(platform, asked)
            if rounds % SWEEP_EVERY == 0:
                await sweep(platform)
            first = False
        rounds += 1
        await platform.clock.sleep(EVERY_SECONDS)


async def repair(platform: Platform, young: timedelta) -> None:
    """One round: everything open is asked for again, each beside the others."""
    before = platform.clock.now() - young
    wishes = await platform.db.read(store.open_wishes, before, _BATCH)
    keeps = await platform.db.read(snapshots.unfinished, before, _BATCH)
    await _repair_templates(platform, before)
    forks: set[tuple[str, str]] = set()
    for record in wishes:
        if record.id in platform.asking:
            continue
        if not _unborn(record):
            _again(platform, record.id, acts.ask(platform, record))
        elif record.born == "fork":
            forks.add((record.org_id, record.born_op))
        else:
            _again(platform, record.id, births.ask(platform, record))
    for org_id, op in forks:
        # All children, also those that were seen already: under that op the host was asked for them all.
        children = await platform.db.read(store.born_by, org_id, op)
        _again(platform, children[0].id, births.ask_fork(platform, children))
    for keep in keeps:
        if keep.id in platform.asking:
            continue
        if keep.state == "making":
            _again(platform, keep.id, keeping.ask(platform, keep))
        else:
            _again(platform, keep.id, keeping.ask_drop(platform, keep))


async def _repair_templates(platform: Platform, before: datetime) -> None:
    for version in await platform.db.read(template_store.in_state, "building"):
        if version.id not in platform.asking and version.created_at < before:
            _again(platform, version.id, _build_on(platform, version))
    for version in await platform.db.read(template_store.in_state, "dropping"):
        if version.id not in platform.asking:
            _again(platform, version.id, templates.ask_drop(platform, version))


async def reach_out(platform: Platform) -> None:
    """One round over egress policies that their hosts have not been told."""
    for record in await platform.db.read(store.open_egress, _BATCH):
        if egress.topic(record.id) not in platform.asking:
            _again(platform, f"the egress policy of {record.id}", egress.ask(platform, record))


async def deploy_on(platform: Platform) -> None:
    """One round over deploys that are under way, with nobody at them."""
    for deploy_id in await platform.db.read(deploy_store.waiting, platform.clock.now()):
        _again(platform, deploy_id, work.carry_out(platform, deploy_id))


async def _build_on(platform: Platform, version: Version) -> None:
    await templates.ask(platform, version)
    await templates.watch(platform, version)


def _unborn(record: Record) -> bool:
    """Whether it is the birth that nobody has taken up; else it is a later wish."""
    return record.epoch < 0 and record.wanted == "running" and record.state == "creating"


def _again(platform: Platform, what: str, asking: Coroutine[Any, Any, object]) -> None:
    platform.spawn(asking, f"asking again for {what}")


async def find_lost(platform: Platform, asked: set[tuple[str, int, int | None]]) -> None:
    """Sandboxes of which a restarted host says nothing, or a report was passed over: each is asked for

    once by each process, and the answer believed.
    """
    for host_id in platform.hosts.ids:
        epoch, _ = await platform.db.read(host_store.position, host_id)
        for record in await platform.db.read(store.unseen_in, host_id, epoch):
            doubt = (record.id, epoch, record.missed_seq)
            if doubt in asked:
                continue
            try:
                await _believe(platform, host_id, record)
            except (HostUnavailable, Unavailable) as error:
                log.debug("asking host %s for %s: %s", host_id, record.id, error)
                break
            except RunToolsError as error:
                log.warning("host %s does not say how %s is: %s", host_id, record.id, error)
            except Exception:
                # As its report was: it fits as little as ever, and others wait behind it.
                log.exception("what host %s says of %s cannot be taken in", host_id, record.id)
            asked.add(doubt)


async def _believe(platform: Platform, host_id: str, record: Record) -> None:
    """Ask for one, and take in what is said; what the reports are yet to tell is left to them."""
    try:
        seen = await platform.hosts.port(host_id).settled(record.id, 0)
    except NotFound:
        await _mourn(platform, record)
        return
    if (seen.epoch, seen.seq) <= await platform.db.read(host_store.position, host_id):
        await platform.db.write(_take_in, seen)
        platform.bus.signal(record.id, record.org_id, webhooks.TOPIC)


def _take_in(conn: Transaction, seen: Observed) -> None:
    observe.observe(conn, seen)
    # It says all that was missed, also where the row was as new already.
    store.change(conn, seen.sandbox_id, {"missed_seq": None})


async def _mourn(platform: Platform, record: Record) -> None:
    reason = "its host has no trace of it any more"
    now = platform.clock.now()
    await platform.db.write(observe.end, record.id, "host_restart", reason, observe.PLATFORM, now)
    platform.bus.signal(record.id, record.org_id)


async def sweep(platform: Platform) -> None:
    """Forget what has had its time, and write down what is only for looking at."""
    now = platform.clock.now()
    kept = timedelta(hours=platform.settings.recover_hours)
    await platform.db.write(idempotency.expire, now - REMEMBERED)
    await platform.db.write(guests.forget_ended, now - kept)
    await platform.db.write(dev_urls.drop, now)
    # What the audit log names is there as long as the log tells of it.
    for drop in (audit.drop, keys.drop, invitations.drop):
        await platform.db.write(drop, now - timedelta(days=platform.settings.audit_days))
    await platform.door.write_uses()
    await hosts.note(platform)
    await strays.watch(platform)
    if leftovers.TOPIC not in platform.asking:  # guests are waited for there, and they may be slow
        platform.spawn(leftovers.end_left(platform), leftovers.TOPIC)
