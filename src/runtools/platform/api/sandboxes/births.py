"""How a sandbox comes to be: by create, by fork of another, by recovery from an ended one's disk.

All three write the wish first, one row per sandbox with the id of the act, then ask the host. A repeat
of the act (by a caller, or by the reconcile loop after a crash in between) finds the rows and asks the
host again with the same id, which the host answers from its journal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from runtools.errors import (
    BuildFailed,
    Conflict,
    HostUnavailable,
    NotFound,
    OutcomeUnknown,
    RunToolsError,
    SandboxStopped,
)
from runtools.platform.api.calls import Call
from runtools.platform.api.dev_urls import store as dev_urls
from runtools.platform.api.guests import store as guests
from runtools.platform.api.hosts.service import present
from runtools.platform.api.limits import store as limits
from runtools.platform.api.limits.rules import standard, taken
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.api.projects import store as projects
from runtools.platform.api.sandboxes import drafts, observe, rules, store
from runtools.platform.api.sandboxes.load import is_settled, load, until
from runtools.platform.api.sandboxes.settle import settle
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.api.secrets import service as secrets
from runtools.platform.api.ssh_keys import service as ssh_keys
from runtools.platform.api.templates import store as templates
from runtools.platform.api.templates.store import Version
from runtools.platform.api.vault.vault import Vault
from runtools.platform.core import states
from runtools.platform.core.ports.host import Child, Forked, Guest
from runtools.platform.core.states import Act, Operation, State
from runtools.platform.kit.crypto import login_hash
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.dev_urls import Access
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.sandboxes import SandboxCreate, SandboxFork, SandboxRecover

log = logging.getLogger(__name__)

READY_SECONDS = 60.0


async def create(call: Call, wanted: SandboxCreate) -> Record:
    """A new sandbox: running, in the queue, or as far as it came in the time a caller is kept waiting."""
    platform = call.platform
    rules.check_create(wanted)
    told: Guest | None = None

    async def born() -> list[Record]:
        nonlocal told
        version = await version_of(call, wanted.template)
        await present(platform, version.host_id)
        env = wanted.env | await secrets.for_sandbox(call, wanted.secrets)
        rules.check_env(env)
        fresh = drafts.fresh(call, version, wanted)
        guest = await _guest(wanted, env, await ssh_keys.lines(call, wanted.ssh_keys, "sshKeys"))
        record = await _write(call, fresh, guest, wanted.project_id, wanted.dev_urls)
        told = guest
        return [record]

    [record] = await call.once(store.born_by, born)
    reach("api.create.written")
    return await _ready(platform, record, told, wait=wanted.wait_for_ready)


async def recover(call: Call, ref: str, wanted: SandboxRecover) -> Record:
    """A new sandbox from the disk that an ended one left behind, or that a paused one has."""
    rules.check_name(wanted.name)
    platform = call.platform
    told: Guest | None = None

    async def born() -> list[Record]:
        nonlocal told
        ended = await load(platform, call.org, ref)
        states.check(Act.RECOVER, State(ended.state), ended.id)
        await present(platform, ended.host_id)
        guest = await platform.db.read(guests.of, platform.vault, ended.id)
        fresh = drafts.after(call, ended, "recover", 0, wanted.name, None)
        record = await _write(call, fresh, guest, ended.project_id)
        told = guest
        return [record]

    [record] = await call.once(store.born_by, born)
    reach("api.recover.written")
    return await _ready(platform, record, told, wait=True)


async def fork(call: Call, ref: str, wanted: SandboxFork) -> tuple[list[Record], float]:
    """Children of a running or paused sandbox, and for how long the parent stood still."""
    platform = call.platform
    rules.check_tags(wanted.tags)
    names = rules.child_names(wanted.name, wanted.count)

    async def born() -> list[Record]:
        parent = await load(platform, call.org, ref)
        if parent.state in (State.CREATING, State.STOPPED):
            states.check(Act.FORK, State(parent.state), parent.id)
        await present(platform, parent.host_id)
        made = [
            drafts.after(call, parent, "fork", n, name, wanted.tags) for n, name in enumerate(names)
        ]
        usual = standard(platform.settings)
        await platform.db.write(_write_children, platform.vault, usual, parent.id, made)
        platform.bus.signal(call.org)
        return made

    children = await call.once(store.born_by, born)
    reach("api.fork.written")
    forked, seen = await ask_fork(platform, children)
    reach("api.fork.asked")
    settled = await asyncio.gather(
        *(_settled(platform, seen.get(child.id, child)) for child in children)
    )
    return settled, forked.standstill_ms


# --- asking the host; the reconcile loop does it too ---


async def ask(platform: Platform, record: Record, guest: Guest | None = None) -> Record:
    """Ask the host for a sandbox that is wanted and not there yet; returns how it then stands.

    Raises:
        RunToolsError: refused, or failed; the sandbox has stopped, then. `HostUnavailable` leaves
            the wish open for the reconcile loop.
    """
    with platform.about(record.id):
        try:
            if guest is None:
                guest = await platform.db.read(guests.of, platform.vault, record.id)
            host = platform.hosts.port(record.host_id)
            observed = await host.create(drafts.order(record, guest))
            reach("api.create.asked")
            return await settle(platform, observed)
        except (HostUnavailable, OutcomeUnknown):
            raise
        except RunToolsError as error:
            await _stillborn(platform, record, error)
            raise


async def ask_fork(platform: Platform, children: list[Record]) -> tuple[Forked, dict[str, Record]]:
    """Ask the host for all children of one act; returns how they then stand, too."""
    first = children[0]
    ids = {child.id for child in children}
    platform.asking |= ids
    try:
        host = platform.hosts.port(first.host_id)
        forked = await host.fork(
            str(first.parent_id),
            first.born_op,
            first.wish_actor,
            [Child(sandbox_id=child.id) for child in children],
        )
    except (HostUnavailable, OutcomeUnknown):
        raise
    except RunToolsError as error:
        for child in children:
            await _stillborn(platform, child, error)
        raise
    finally:
        platform.asking -= ids
    seen = await asyncio.gather(*(settle(platform, observed) for observed in forked.children))
    return forked, {record.id: record for record in seen}


async def _settled(platform: Platform, record: Record) -> Record:
    if is_settled(record):
        return record
    return await until(platform, record.id, is_settled, READY_SECONDS)


async def _ready(platform: Platform, record: Record, guest: Guest | None, *, wait: bool) -> Record:
    deadline = platform.clock.monotonic() + READY_SECONDS
    now = record
    if not is_settled(record):
        asking = platform.spawn(ask(platform, record, guest), f"create {record.id}")
        if not wait:
            return record
        await asyncio.wait((asking,), timeout=READY_SECONDS)
        now = _outcome(asking) or record
    if not _is_told(now):
        left = max(0.0, deadline - platform.clock.monotonic())
        now = await until(platform, record.id, _is_told, left)
    if now.state == "stopped":
        raise SandboxStopped(
            f"{now.id} never came to run: {(now.ending or {}).get('reason', 'it was destroyed')}",
            hint=f"runtools sandbox why {now.id} tells more",
            details={"sandboxId": now.id},
        )
    return now


def _is_told(record: Record) -> bool:
    """Whether a caller need not be kept waiting: it runs or never will, or has its place in the queue."""
    return is_settled(record) or record.operation == Operation.QUEUED


def _outcome(asking: asyncio.Task[Record]) -> Record | None:
    """A refusal is the caller's answer; a host that went away in the middle is waited for."""
    if not asking.done():
        return None
    try:
        return asking.result()
    except (HostUnavailable, OutcomeUnknown):
        return None


async def _stillborn(platform: Platform, record: Record, error: RunToolsError) -> None:
    """The host refused or failed: take in the end that it tells of, else write it down here."""
    error.details.setdefault("sandboxId", record.id)
    try:
        seen = await platform.hosts.port(record.host_id).settled(record.id, 0)
        if (await settle(platform, seen)).state == "stopped":
            return
    except RunToolsError as silence:
        log.debug("host %s knows nothing of %s: %s", record.host_id, record.id, silence)
    await platform.db.write(_write_stillborn, record, str(error), platform.clock.now())
    platform.bus.signal(record.id, record.org_id)


# --- what they are made of ---


async def _write(
    call: Call, record: Record, guest: Guest, project_id: str | None, access: Access | None = None
) -> Record:
    platform = call.platform
    usual = standard(platform.settings)
    record = await call.made(_write_one, platform.vault, usual, record, guest, project_id, access)
    platform.bus.signal(call.org)
    return record


def _write_one(
    conn: Transaction,
    vault: Vault,
    usual: Amounts,
    record: Record,
    guest: Guest,
    project_id: str | None,
    access: Access | None,
) -> Record:
    limits.reserve(conn, record.org_id, taken([record]), usual)
    project = projects.place(conn, record.org_id, project_id)
    if record.born == "create" and not templates.still_ready(conn, record.template_id):
        raise Conflict(
            f"{record.template}@{record.template_version} is being deleted",
            hint="choose another version",
        )
    record = replace(record, project_id=project)
    store.add(conn, record)
    guests.keep(conn, vault, record.id, guest)
    if access is not None:
        by, at = record.wish_actor, record.created_at
        dev_urls.choose(conn, record.org_id, record.id, dev_urls.ALL, access, by, at)
    observe.born(conn, record)
    return record


def _write_children(
    conn: Transaction, vault: Vault, usual: Amounts, parent_id: str, children: list[Record]
) -> None:
    limits.reserve(conn, children[0].org_id, taken(children), usual)
    guest = guests.of(conn, vault, parent_id)
    # All rows before the first ledger line: who holds the org's counter must not wait for a name.
    for child in children:
        store.add(conn, child)
        guests.keep(conn, vault, child.id, guest)
    for child in children:
        observe.born(conn, child)


def _write_stillborn(conn: Transaction, record: Record, reason: str, at: datetime) -> None:
    now = store.locked(conn, record.id) or record
    if now.state == "creating":
        observe.ended(conn, now, "start_failed", reason, record.wish_actor, at)
        # Should the host have made something of it after all, it is to go.
        store.wish(conn, now, "stopped", f"{record.born_op}-end", observe.PLATFORM, at)


async def version_of(call: Call, ref: str | None) -> Version:
    """The template version that a new sandbox would be made from.

    Raises:
        NotFound, Conflict, BuildFailed: there is none, or none that is ready.
    """
    slug, number = rules.template_ref(ref or call.platform.settings.default_template)
    versions = await call.platform.db.read(templates.choices, call.org, slug, number)
    for version in versions:
        if version.state == "ready":
            return version
    name = slug if number is None else f"{slug}@{number}"
    if not versions:
        raise NotFound(
            f"no template {name!r}",
            hint=f"runtools template build {slug}, or see runtools template list",
            details={"field": "template", "template": name},
        )
    if versions[0].state == "building":
        raise Conflict(
            f"template {name} is still being built",
            hint=f"runtools template logs {slug} shows how far it is",
            details={"field": "template", "progress": versions[0].progress},
        )
    raise BuildFailed(
        f"template {name} was not built: {versions[0].error or versions[0].step}",
        hint=f"runtools template logs {slug}",
        details={"field": "template"},
    )


async def _guest(wanted: SandboxCreate, env: Mapping[str, str], keys: list[str]) -> Guest:
    hashed = None if wanted.password is None else await login_hash(wanted.password)
    return Guest(env=dict(env), ssh_keys=keys, password_hash=hashed)
