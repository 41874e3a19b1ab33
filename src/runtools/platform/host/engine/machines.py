"""Bringing up a machine: what create, fork, rollback and recovery have in common.

network ┐
disk    ├─▶ restore or boot ─▶ agent ─▶ renew ─▶ gate ─▶ grow the disk
identity┘ (made on the host, needed at the renewal)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from runtools.errors import NotFound
from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.states import Act, State, check
from runtools.platform.host.disk import files
from runtools.platform.host.disk.trees import remove
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.journal import Life
from runtools.platform.host.engine.meeting import BOOTED_SECONDS, RESTORED_SECONDS, client, meet
from runtools.platform.host.engine.phases import Phases
from runtools.platform.host.engine.places import make_folder
from runtools.platform.host.engine.points import reach
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.guest.identity import Identity
from runtools.sdk.shapes.sandboxes import StartedFrom

MB = 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """What a machine starts from.

    Attributes:
        started_from: as it is shown.
        capture: a saved state to restore; None boots cold.
        overlay: the disk to copy; None makes a fresh one.
        take_overlay: move the disk instead: nobody else needs it.
        token: what the agent asks of its first caller.
        owner: whose disk it is, where it may go on with it: copied when its turn has come.
        fresh: whether it gets an identity of its own, or is the same machine gone back in time.
    """

    started_from: StartedFrom
    capture: Path | None
    overlay: Path | None
    token: str
    owner: Actor | None = None
    fresh: bool = True
    take_overlay: bool = False


@dataclass(frozen=True, slots=True)
class Up:
    """A machine that runs, was renewed and may be handed out."""

    life: Life
    guest: GuestClient


async def bring_up(
    box: Actor,
    life: Life,
    source: Source,
    keep: Callable[[Life], None],
    undo: AsyncExitStack,
    phases: Phases,
    points: str,
) -> Up:
    """Start a machine and make it ready. Whatever fails, ``undo`` takes back what was made.

    ``keep`` journals the life as it is; ``points`` is the act that names the crash points.
    """
    driver = box.engine.driver
    identity = asyncio.ensure_future(asyncio.to_thread(identity_of, box, source.fresh))
    undo.callback(identity.cancel)
    life = await _furnish(box, life, source, undo, phases, points)
    keep(life)
    reach(f"{points}.furnished")
    machine = box.machine(life)
    undo.push_async_callback(driver.kill, machine)
    if source.capture is None:
        await driver.boot(machine)
    else:
        await driver.clone(machine, source.capture)
    phases.mark("restore")
    reach(f"{points}.started")
    who = await identity
    within = BOOTED_SECONDS if source.capture is None else RESTORED_SECONDS
    guest = client(box.engine, box.record.order.org_id, machine, source.token, phases.connected)
    undo.push_async_callback(guest.close)
    await meet(box.engine, machine, guest, who, within)
    phases.mark("first_byte")
    reach(f"{points}.renewed")
    if source.fresh:
        life = replace(life, token=who.token)
        await _grow(box, life, guest)
    return Up(life, guest)


async def _furnish(
    box: Actor, life: Life, source: Source, undo: AsyncExitStack, phases: Phases, points: str
) -> Life:
    """A folder, a disk and a network, the last two side by side."""
    engine = box.engine
    folder = engine.places.life(box.id, life.number)
    undo.callback(remove, folder)
    make_folder(folder)
    opening = asyncio.ensure_future(engine.network.open(box.record.order.policy, box.refusals.add))
    undo.push_async_callback(_give_back, box, opening)
    await _disk(engine.places.overlay(box.id, life.number), life.uid, box, source)
    reach(f"{points}.disk")
    phases.mark("place")
    slot = await asyncio.shield(opening)
    phases.mark("network")
    reach(f"{points}.network")
    return replace(life, slot=slot)


async def _disk(overlay: Path, uid: int, box: Actor, source: Source) -> None:
    if source.overlay is None:
        await files.make_overlay(overlay, box.record.order.sizes.disk_mb)
    elif source.take_overlay:
        source.overlay.rename(overlay)
    elif source.owner is not None:
        await _copied(source.owner, overlay)
    else:
        await files.copy_sparse(source.overlay, overlay, box.engine.headroom_bytes)
    if os.geteuid() == 0:
        os.chown(overlay, uid, uid)
    overlay.chmod(0o600)


async def _copied(owner: Actor, overlay: Path) -> None:
    """Copy the disk of a sandbox that does not run, and does not begin to meanwhile: in its own turn.

    Raises:
        IllegalMove: it runs by now.
        NotFound: its disk was removed meanwhile.
        CapacityExhausted: it waits for room to go on.
    """

    async def copy() -> None:
        check_recoverable(owner)
        await files.copy_sparse(owner.overlay, overlay, owner.engine.headroom_bytes)

    await owner.perform(copy, asked=True)


def check_recoverable(owner: Actor) -> None:
    """Make sure that a disk is there which nobody writes.

    Raises:
        NotFound: it was destroyed, or its disk was removed.
        IllegalMove: it runs.
    """
    check(Act.RECOVER, owner.state, owner.id)
    if owner.state is State.STOPPED and not owner.record.keeps_disk:
        raise NotFound(
            f"the disk of {owner.id} is not kept (any more)",
            hint="a disk is kept for a while when a sandbox ends other than by destroy",
        )


async def _give_back(box: Actor, opening: asyncio.Future[Slot]) -> None:
    """Close a network that may still be opening."""
    try:
        slot = await opening
    except Exception:  # noqa: BLE001 - it failed to open: the act says so, there is nothing to close
        return
    await box.engine.network.close(slot)
    box.books.forget_slot(slot)


def identity_of(box: Actor, fresh: bool) -> Identity:
    """What the guest is to become: a machine of its own, or itself at another time."""
    guest = box.record.order.guest
    return Identity.make(
        hostname=box.id,
        env=guest.env,
        ssh_keys=guest.ssh_keys,
        password_hash=guest.password_hash,
        fresh=fresh,
    )


async def _grow(box: Actor, life: Life, guest: GuestClient) -> None:
    """Give the guest the disk it was promised, where it started from a smaller one."""
    overlay = box.engine.places.overlay(box.id, life.number)
    wanted = box.record.order.sizes.disk_mb
    if overlay.stat().st_size < wanted * MB:
        await files.grow(overlay, wanted)
        await box.engine.driver.grow_disk(box.machine(life))
        await guest.grow_filesystem(wanted * MB)
