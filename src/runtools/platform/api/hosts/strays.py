"""Strays: sandboxes that a host has and that no record bears, as after an older backup was restored.

Nobody can reach one, so it must not run on; but the record may be lost by mistake, so nothing of it is
taken away. It is paused and kept, and the health of the platform says so. What becomes of it an operator
decides: `adopt` gives it a record, `destroy` ends it; a better backup makes it an ordinary sandbox again.
"""

from __future__ import annotations

import logging
from datetime import datetime

from runtools.errors import Conflict, NotFound, RunToolsError
from runtools.platform.api.guests import store as guests
from runtools.platform.api.hosts.registry import Hosts
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.platform import Platform
from runtools.platform.api.projects import store as projects
from runtools.platform.api.sandboxes import observe, store
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.templates import store as templates
from runtools.platform.api.templates.store import Version
from runtools.platform.api.vault.vault import Vault
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import CreateOrder, Host, Observed
from runtools.platform.kit.db import Database, Transaction

log = logging.getLogger(__name__)


async def watch(platform: Platform) -> None:
    """Look for strays on every host that answers, and pause those that run."""
    for host_id in platform.hosts.ids:
        host = platform.hosts.port(host_id)
        try:
            found = await those(platform.db, host)
        except RunToolsError as error:
            log.debug("asking host %s what it has: %s", host_id, error)
            continue
        platform.strays[host_id] = [stray.sandbox_id for stray in found]
        for stray in found:
            if stray.state == "running" and stray.operation is None:
                await _pause(host, stray)


async def _pause(host: Host, stray: Observed) -> None:
    log.warning("%s runs, and no record bears it: it is paused and kept", stray.sandbox_id)
    try:
        await host.pause(stray.sandbox_id, f"stray-{stray.epoch}-{stray.seq}", observe.PLATFORM)
    except RunToolsError as error:
        log.warning("%s could not be paused: %s", stray.sandbox_id, error)


async def those(db: Database, host: Host) -> list[Observed]:
    """The strays of a host that have not ended."""
    living = {seen.sandbox_id: seen for seen in await host.known() if seen.state != "stopped"}
    # Asked in this order: a record is written before its host is told of the sandbox.
    recorded = await db.read(store.which, list(living))
    return [seen for sandbox_id, seen in living.items() if sandbox_id not in recorded]


async def find(db: Database, host: Host, sandbox_id: str) -> Observed:
    """A stray by its id.

    Raises:
        NotFound: there is none.
    """
    for seen in await those(db, host):
        if seen.sandbox_id == sandbox_id:
            return seen
    raise NotFound(f"no stray {sandbox_id[:80]!r}", hint="runtools strays lists those there are")


async def adopt(
    db: Database,
    vault: Vault,
    hosts: Hosts,
    sandbox_id: str,
    org_id: str | None,
    now: datetime,
) -> Record:
    """Give a stray a record, without a name, in an org (the first, where none is named).

    Raises:
        NotFound: there is no such stray or org.
        Conflict: its template version is not in the records, either.
    """
    host_id = hosts.first
    host = hosts.port(host_id)
    seen = await find(db, host, sandbox_id)
    order = await host.order(sandbox_id)
    org, project = await db.read(_place, org_id, order)
    await host.hand_over(sandbox_id, org)
    return await db.write(_take, vault, host_id, seen, order, org, project, now)


def _place(conn: Transaction, org_id: str | None, order: CreateOrder) -> tuple[str, str]:
    """The org and its project that one is adopted into; refused here, nothing of it has changed hands."""
    org = org_id or orgs.first(conn)
    project = projects.find(conn, org, None) if org is not None else None
    if org is None or project is None:
        raise NotFound(f"no org {org_id!r}")
    _version(conn, org, order)
    return org, project


def _version(conn: Transaction, org: str, order: CreateOrder) -> Version:
    version = templates.lent(conn, org, order.template_version_id)
    if version is None:
        raise Conflict(
            f"{order.sandbox_id} stands on template version {order.template_version_id}, of which "
            f"{org} has no record",
            hint="restore a backup that has it, or destroy the stray",
        )
    return version


def _take(
    conn: Transaction,
    vault: Vault,
    host_id: str,
    seen: Observed,
    order: CreateOrder,
    org: str,
    project: str,
    now: datetime,
) -> Record:
    version = _version(conn, org, order)
    op = new_id("opn")
    record = Record(
        id=order.sandbox_id,
        org_id=org,
        project_id=project,
        host_id=host_id,
        name=None,
        template_id=version.id,
        template=version.slug,
        template_version=version.version,
        parent_id=None,
        tags={},
        env_names=sorted(order.guest.env),
        vcpus=order.sizes.vcpus,
        memory_mb=order.sizes.memory_mb,
        disk_mb=order.sizes.disk_mb,
        internet=order.internet,
        egress=order.egress.model_dump(by_alias=False),
        idle_timeout_seconds=order.idle_timeout_seconds,
        max_lifetime_seconds=order.max_lifetime_seconds,
        require_isolation=order.require_isolation,
        may_queue=order.queue,
        born="adopt",
        born_op=op,
        born_n=0,
        created_at=now,
        wanted="paused" if seen.state == "paused" else "running",
        generation=1,
        wish_op=op,
        wish_actor=observe.PLATFORM,
        wish_open=False,
        wished_at=now,
    )
    store.add(conn, record)
    guests.keep(conn, vault, record.id, order.guest)
    observe.born(conn, record)
    return observe.observe(conn, seen) or record
