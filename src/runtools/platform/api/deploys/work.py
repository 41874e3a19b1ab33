"""Carrying a deploy out, change by change, by whichever process has its lease.

Every step can be done again: what it asks of a host has an id made of the deploy's and the change's, and
what it writes is one transaction with the note that it is done, which only who has the lease can make.
So a crash between any two instructions leaves a deploy that another process (or this one, started anew)
goes on with when the lease has run out. A change that fails is tidied up after, and ends the deploy; what
was done before it stays done, and the next deploy's plan begins there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from runtools.errors import OutcomeUnknown, RunToolsError, Unavailable
from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.deploys import boxes, store
from runtools.platform.api.deploys.job import Job, Lost, Work
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.deploys import DeployError

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=4)
HOLD_SECONDS = 1.0
# How long a host that does not answer is waited for.
PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 1.0


async def carry_out(platform: Platform, deploy_id: str) -> None:
    """Carry a deploy out to its end, unless another process does."""
    lease, now = new_id("lse"), platform.clock.now()
    taken = await platform.db.write(store.take, platform.vault, deploy_id, lease, now, now + LEASE)
    if taken is None:
        return
    row, work = taken
    job = Job(platform, row, lease, [Work(**one) for one in json.loads(work)])
    working = asyncio.create_task(_all(job))
    holding = asyncio.create_task(_hold(job))
    try:
        await asyncio.wait((working, holding), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, holding):
            task.cancel()
        await asyncio.wait((working, holding))
        await asyncio.shield(
            platform.db.write(store.let_go, deploy_id, lease, platform.clock.now())
        )
        platform.bus.signal(deploy_id)
    with contextlib.suppress(asyncio.CancelledError, Lost):
        working.result()


async def _hold(job: Job) -> None:
    """Keep the lease; ends when another process has it."""
    platform = job.platform
    while True:
        await platform.clock.sleep(HOLD_SECONDS)
        until = platform.clock.now() + LEASE
        if not await platform.db.write(store.hold, job.row.id, job.lease, until):
            return


async def _all(job: Job) -> None:
    row, failed = job.row, job.row.error is not None
    at = row.done
    while not failed and at < len(job.work):
        try:
            await _patiently(job, lambda at=at: _step(job, at))  # type: ignore[misc]
        except Lost:
            raise
        except Exception as exc:
            # Whatever it was, the deploy must end and say so.
            if not isinstance(exc, RunToolsError):
                log.exception("%s failed at its change %d", row.id, at + 1)
            await _stumble(job, at, exc)
            failed = True
        else:
            at += 1
    if failed:
        await _tidy_up(job, at)
    await job.write(store.end, "failed" if failed else "done", job.platform.clock.now())


async def _patiently(job: Job, act: Callable[[], Any]) -> None:
    """Do it again while its host, or the database, does not answer."""
    clock = job.platform.clock
    deadline = clock.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            await act()
        except (Unavailable, OutcomeUnknown):
            if clock.monotonic() > deadline:
                raise
        else:
            return
        await clock.sleep(_PAUSE_SECONDS)


async def _step(job: Job, at: int) -> None:
    await job.check()
    work = job.work[at]
    if work.kind == "sandbox":
        await boxes.carry_out(job, at, work)
    else:
        await job.note(at, lambda conn: _write(conn, job, work))
    reach("api.deploy.noted")


def _write(conn: Transaction, job: Job, work: Work) -> None:
    """An agent or a tool is a record, no more."""
    now = job.platform.clock.now()
    if work.action == "delete":
        definitions.remove(conn, job.row.org_id, str(work.definition_id), now)
        return
    assert work.wanted is not None  # noqa: S101 - only a delete wants nothing
    definitions.put(conn, job.platform.vault, job.place(work), work.wanted, job.row.id, now)


async def _stumble(job: Job, at: int, error: Exception) -> None:
    known = (
        error
        if isinstance(error, RunToolsError)
        else RunToolsError("the platform failed to carry it out", hint="its log has the details")
    )
    work = job.work[at]
    told = DeployError(
        code=known.code,
        message=f"{work.kind} {work.slug}: {known.message}",
        hint=known.hint,
        output=known.details.get("output"),
    )
    await job.write(store.stumble, told.model_dump(mode="json", by_alias=False))
    reach("api.deploy.stumbled")


async def _tidy_up(job: Job, at: int) -> None:
    """Take away what the change that failed has half made."""
    work = job.work[at]
    if work.kind != "sandbox":
        return
    try:
        await _patiently(job, lambda: boxes.tidy_up(job, at, work))
    except RunToolsError as error:
        # What is left has been wished away; the reconcile loop sees to it.
        log.info("tidying up after %s: %s", job.row.id, error)
