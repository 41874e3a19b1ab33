"""Standing sandboxes: making one, putting it in another's place, changing it as it stands, taking it away.

A new one is made and set up under no name while the old one stands; only when its `setup` has come to its
end does it take slug and name over, in one transaction, and only then does the old one go. So a setup that
fails costs nobody their data.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from runtools.errors import DeadlineExceeded, SandboxStopped
from runtools.platform.api.calls import Call
from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.deploys.job import Job, Work
from runtools.platform.api.deploys.setup import set_up
from runtools.platform.api.dev_urls import store as dev_urls
from runtools.platform.api.points import reach
from runtools.platform.api.sandboxes import acts, births, egress, store
from runtools.platform.api.sandboxes.load import is_settled, until
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.snapshots import service as snapshots
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import SandboxDefinition
from runtools.sdk.shapes.dev_urls import Access
from runtools.sdk.shapes.egress import EgressChange
from runtools.sdk.shapes.sandboxes import SandboxCreate, SnapshotCreate

BIRTH_SECONDS = 600.0
_LOOK_SECONDS = 5.0
SETUP_SNAPSHOT = "setup"
_REACH = {"internet", "egress"}
_LIMITS = {"idleTimeoutSeconds", "maxLifetimeSeconds"}


def name_of(project: str, slug: str) -> str:
    """The name of the sandbox that stands for a slug: no two projects of an org have it in common."""
    name = f"{project}-{slug}"
    if len(name) <= 63:
        return name
    return f"{name[:54].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


async def carry_out(job: Job, at: int, work: Work) -> None:
    """Do what a change says."""
    if work.action == "delete":
        await _delete(job, at, work)
    elif work.action == "update":
        await _update(job, at, work)
    else:
        await _make(job, at, work)


async def tidy_up(job: Job, at: int, work: Work) -> None:
    """Take away a sandbox that was made and has not come to stand for anything."""
    platform = job.platform
    born = await platform.db.read(store.born_by, job.row.org_id, job.call(at).op)
    standing = await platform.db.read(definitions.sandbox_of, *job.place(work))
    for record in born:
        if record.id != standing and record.state != "stopped":
            await acts.destroy(job.call(at, "-t"), record.id)


async def _make(job: Job, at: int, work: Work) -> None:
    wanted = SandboxDefinition.model_validate(work.wanted)
    record = await _born(job, at, wanted)
    reach("api.deploy.made")
    if wanted.setup:
        await set_up(job, job.call(at), record, wanted)
        reach("api.deploy.set_up")
        keep = SnapshotCreate(name=SETUP_SNAPSHOT)
        await snapshots.make(job.call(at, "-s"), record.id, keep)
    await job.held(partial(_take_over, job, at, work, record.id))
    reach("api.deploy.taken_over")
    if work.sandbox_id is not None and work.action == "replace":
        await acts.destroy(job.call(at, "-d"), work.sandbox_id)
    await job.note(at, lambda _: None)


async def _born(job: Job, at: int, wanted: SandboxDefinition) -> Record:
    call = job.call(at)
    same = set(SandboxCreate.model_fields) & set(SandboxDefinition.model_fields) - {"name"}
    order = {field: getattr(wanted, field) for field in same}
    record = await births.create(
        call, SandboxCreate.model_validate({**order, "project_id": job.row.project_id})
    )
    clock = job.platform.clock
    deadline = clock.monotonic() + BIRTH_SECONDS
    while not is_settled(record) and clock.monotonic() < deadline:
        await job.check()
        record = await until(job.platform, record.id, is_settled, _LOOK_SECONDS)
    if record.state == "stopped":
        reason = (record.ending or {}).get("reason", "it was destroyed")
        raise SandboxStopped(f"it never came to run: {reason}")
    if record.state == "creating":
        raise DeadlineExceeded(
            f"there was no room for it in {BIRTH_SECONDS / 60:.0f} min",
            hint="runtools hosts shows what is free; destroy or pause something, then deploy again",
            details={"queue": record.queue},
        )
    return record


def _take_over(job: Job, at: int, work: Work, sandbox_id: str, conn: Transaction) -> None:
    """From now on this sandbox stands for the slug, and bears the name; the old one is to end.

    That is wished here already: whatever becomes of the deploy, nobody would find it by a name again.
    """
    if definitions.sandbox_of(conn, *job.place(work)) == sandbox_id:
        return  # a repeat
    if work.sandbox_id is not None:
        old = store.locked(conn, work.sandbox_id)
        store.change(conn, work.sandbox_id, {"name": None})
        if old is not None and "stopped" not in (old.state, old.wanted):
            call = job.call(at, "-d")
            store.wish(conn, old, "stopped", call.op, call.actor, job.platform.clock.now())
    store.rename(conn, sandbox_id, name_of(job.row.project, work.slug))
    _put(conn, job, work, sandbox_id)


def _put(conn: Transaction, job: Job, work: Work, sandbox_id: str | None = None) -> None:
    assert work.wanted is not None  # noqa: S101 - only a delete wants nothing
    now = job.platform.clock.now()
    definitions.put(
        conn, job.platform.vault, job.place(work), work.wanted, job.row.id, now, sandbox_id
    )


async def _update(job: Job, at: int, work: Work) -> None:
    platform, sandbox_id = job.platform, str(work.sandbox_id)
    wanted = SandboxDefinition.model_validate(work.wanted)
    columns: dict[str, Any] = {}
    if _REACH.intersection(work.fields):
        rules = wanted.egress
        change = EgressChange(internet=wanted.internet, allow=rules.allow, deny=rules.deny)
        await egress.change(job.call(at, "-e"), sandbox_id, change)
    if _LIMITS.intersection(work.fields):
        record = await platform.db.read(store.by_id, job.row.org_id, sandbox_id)
        assert record is not None  # noqa: S101 - the plan has just seen it
        host = platform.hosts.port(record.host_id)
        idle, lifetime = wanted.idle_timeout_seconds, wanted.max_lifetime_seconds
        await host.set_limits(sandbox_id, idle, lifetime)
        columns = {"idle_timeout_seconds": idle, "max_lifetime_seconds": lifetime}
    reach("api.deploy.changed")

    def written(conn: Transaction) -> None:
        if columns:
            store.change(conn, sandbox_id, columns)
        if "tags" in work.fields:
            store.retag(conn, sandbox_id, wanted.tags)
        if "devUrls" in work.fields:
            _choose(conn, job.call(at), sandbox_id, wanted.dev_urls)
        _put(conn, job, work)

    await job.note(at, written)
    platform.bus.signal(sandbox_id, job.row.org_id)


def _choose(conn: Transaction, call: Call, sandbox_id: str, access: Access | None) -> None:
    """Who may enter its ports that have no choice of their own."""
    if access is None:
        dev_urls.forget(conn, call.org, sandbox_id, dev_urls.ALL)
    else:
        now = call.platform.clock.now()
        dev_urls.choose(conn, call.org, sandbox_id, dev_urls.ALL, access, call.actor, now)


async def _delete(job: Job, at: int, work: Work) -> None:
    if work.sandbox_id is not None:
        await acts.destroy(job.call(at, "-d"), work.sandbox_id)
    reach("api.deploy.destroyed")
    now = job.platform.clock.now()
    await job.note(
        at,
        lambda conn: _gone(conn, job.row.org_id, str(work.definition_id), now),
    )


def _gone(conn: Transaction, org_id: str, definition_id: str, now: Any) -> None:
    definitions.remove(conn, org_id, definition_id, now)
