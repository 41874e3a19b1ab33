"""Create: admission, a place, a network, a disk, a machine from a warm snapshot or cold."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import replace

from runtools.errors import HostUnavailable
from runtools.platform.core.states import State
from runtools.platform.host.engine import durable
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts import end
from runtools.platform.host.engine.acts.admit import admitted
from runtools.platform.host.engine.acts.queued import is_queued, still_queued
from runtools.platform.host.engine.acts.room import room
from runtools.platform.host.engine.budget import load_of
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.fitness import check_isolation
from runtools.platform.host.engine.machines import MB, Source, bring_up, check_recoverable
from runtools.platform.host.engine.phases import Phases
from runtools.platform.host.engine.places import OVERLAY
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.why import Why
from runtools.platform.host.templates.images import Image
from runtools.platform.kit.tracing import Span

WARMING = "warm "
"""How the tickets of machines begin that are being warmed."""


async def create(box: Actor, why: Why) -> None:
    """Make the journaled sandbox run, or end it as `start_failed`.

    Raises:
        RunToolsError: it could not be started; nothing of it is left but the ledger.
    """
    engine = box.engine
    about = {"runtools.sandbox.id": box.id, "runtools.cause": why.cause}
    try:
        with engine.tracing.span("sandbox.create", attributes=about) as span:
            await _create(box, why, span)
    except asyncio.CancelledError:
        raise  # a destroy, which goes on with it, or the host goes down: a restart begins it anew
    except Exception as exc:
        if engine.stopping and isinstance(exc, HostUnavailable):
            raise
        raise await end.start_failed(box, why, exc) from exc


async def _create(box: Actor, why: Why, span: Span) -> None:
    engine = box.engine
    phases = Phases(engine.clock, engine.tracing)
    async with AsyncExitStack() as undo:
        # Anew, after a restart: the operator may have come to require it.
        check_isolation(engine, box.record.order.require_isolation)
        await admitted(box, why, undo, queue=box.record.order.queue)
        phases.mark("queue")
        reach("create.admitted")
        source = await _source(box)
        with await _room(box, source):
            await first_start(box, why, source, undo, phases, "create", span)
    reach("create.reported")
    if source.started_from == "cold":
        engine.later(_warm_up(box), f"warming for {box.id}")


async def first_start(
    box: Actor,
    why: Why,
    source: Source,
    undo: AsyncExitStack,
    phases: Phases,
    points: str,
    span: Span,
) -> None:
    """Bring up the first machine of a sandbox and commit that it runs; ``undo`` is emptied then."""
    life = box.record.life
    assert life is not None  # noqa: S101 - it was journaled with the order
    life = replace(life, token=source.token)
    up = await bring_up(box, life, source, box.books.keep_life, undo, phases, points)
    ready = replace(
        box.record,
        state=State.RUNNING,
        life=up.life,
        isolation=box.engine.capabilities.isolation,
        started_from=source.started_from,
        timings=phases.timings(),
        running_since=box.engine.clock.now(),
    )
    box.books.finish(why, ready)
    # Not before the journal says so: what fails until then is taken back, the machine too.
    undo.pop_all()
    box.guest = up.guest
    box.touch()
    assert ready.timings is not None  # noqa: S101 - they were just taken
    box.engine.meters.created(source.started_from, ready.timings)
    span.note(
        runtools__started_from=source.started_from,
        runtools__isolation=ready.isolation,
        runtools__template_version=ready.order.template_version_id,
    )
    box.vigil.begin()
    box.engine.later(durable.note(box), f"making the journal of {box.id} durable")


async def _source(box: Actor) -> Source:
    """Where to start from: the disk of another sandbox, a warm snapshot that fits, or nothing."""
    engine, order = box.engine, box.record.order
    if order.recover_from is not None:
        left = recoverable(engine, order.recover_from)
        return Source("recovery", None, left.overlay, _token(), owner=left)
    image = engine.templates.image(order.template_version_id)
    found = await engine.warm.find(image, engine.driver, order.sizes.vcpus, order.sizes.memory_mb)
    if found is None or (found / OVERLAY).stat().st_size > order.sizes.disk_mb * MB:
        return Source("cold", None, None, _token())
    return Source("warm", found, found / OVERLAY, engine.warm.token(found))


async def _room(box: Actor, source: Source) -> AbstractContextManager[None]:
    """For a disk as others have left it; that of a warm snapshot is next to nothing."""
    if source.owner is None:
        return nullcontext()
    return await room(box.engine, source.owner.overlay, 1)


def recoverable(engine: Engine, sandbox_id: str) -> Actor:
    """The ended sandbox whose disk is still kept, or the paused one.

    Raises:
        NotFound: it is unknown, was destroyed, or its disk was removed.
        IllegalMove: it runs.
        CapacityExhausted: it waits for room to go on.
    """
    left = engine.actor(sandbox_id)
    check_recoverable(left)
    if is_queued(left):
        raise still_queued(left)
    return left


def _token() -> str:
    return secrets.token_hex(32)


async def _warm_up(box: Actor) -> None:
    """Make a warm snapshot of this size for the next create, if there is room to do it now."""
    engine, sizes = box.engine, box.record.order.sizes
    image: Image = engine.templates.image(box.record.order.template_version_id)
    ticket = f"{WARMING}{image.version_id} {sizes.vcpus}x{sizes.memory_mb}"
    engine.admission.enter_now(ticket, load_of(sizes.memory_mb, engine.settings.memory_factor))
    try:
        await engine.warm.make(image, sizes.vcpus, sizes.memory_mb)
    finally:
        engine.admission.leave(ticket)
