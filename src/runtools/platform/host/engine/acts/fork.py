"""Fork: one capture of the parent, from which all children are cloned side by side.

The capture lives only as long as the act. A child maps its memory file privately; once its VMM runs,
the mapping keeps the file's bytes alive without a name, and everything that could need them again (a
pause, a fork of the child) reads them through the mapping and writes files of its own. So no count of
users has to be kept, and a crash in the middle of the act is the only way to leave a capture behind:
the next start removes it.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from runtools.errors import Conflict, SandboxStopped, Unavailable
from runtools.platform.core.ports.host import Child, Forked
from runtools.platform.core.states import Act, State, check
from runtools.platform.host.engine import registry
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts import end
from runtools.platform.host.engine.acts.admit import load
from runtools.platform.host.engine.acts.conclude import conclude
from runtools.platform.host.engine.acts.create import first_start
from runtools.platform.host.engine.acts.destroy import destroy
from runtools.platform.host.engine.acts.room import room
from runtools.platform.host.engine.acts.snapshot import capture
from runtools.platform.host.engine.fitness import check_fit, check_isolation
from runtools.platform.host.engine.machines import Source
from runtools.platform.host.engine.phases import Phases
from runtools.platform.host.engine.places import OVERLAY, clear_away, make_folder
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.why import Why


async def fork(box: Actor, why: Why, children: list[Child]) -> Forked:
    """Make children of a running or paused sandbox. Those that fail are stopped, and say why.

    Raises:
        CapacityExhausted: there is no room for all of them; none was made.
        IsolationUnavailable: children may not run on what this host gives.
        SandboxStopped: none of them came to run.
    """
    engine, ids = box.engine, [child.sandbox_id for child in children]
    check(Act.FORK, box.state, box.id)
    check_isolation(engine, box.record.order.require_isolation)
    _check_fit_and_new(box, ids)
    async with box.act(Act.FORK, why, things=tuple(ids)), AsyncExitStack() as undo:
        reach("fork.begun")
        alone = len(ids) == 1
        # The capture's disk becomes an only child's; several get a copy each.
        copies = 1 if alone else 1 + len(ids)
        memory_mb = box.record.order.sizes.memory_mb
        undo.enter_context(await room(engine, box.overlay, copies, memory_mb))
        engine.admission.enter_all_now(ids, load(box))
        undo.callback(_give_back_tickets, box, ids)
        folder = engine.places.captures / ids[0]
        undo.push_async_callback(clear_away, folder)
        make_folder(folder)
        standstill = await capture(box, folder, "fork")
        _note_standstill(box, standstill)
        reach("fork.captured")
        token = box.record.life.token if box.record.life else ""
        source = Source("fork", folder, folder / OVERLAY, token, take_overlay=alone)
        born = await _born(box, why, ids, source)
        reach("fork.children")
        result = Forked(children=[one.latest() for one in born], standstill_ms=standstill)
        await finish(box, why, result)
    return result


async def finish(box: Actor, why: Why, result: Forked) -> None:
    """Commit what came of it.

    Raises:
        SandboxStopped: nothing came of it.
    """
    # One that is still being created has failed: that its end cannot be written down is why it is.
    failures = ("stopped", "creating")
    running = [child.sandbox_id for child in result.children if child.state not in failures]
    failed = {
        child.sandbox_id: child.ending.reason if child.ending else "it did not come to run"
        for child in result.children
        if child.state in failures
    }
    if not running:
        error = SandboxStopped(
            f"no child of {box.id} came to run: {next(iter(failed.values()), 'none was asked for')}",
            details={"failed": failed},
        )
        if failed:  # else nothing was begun: a repeat begins it
            box.engine.ops.keep(why.op, why.what, error)
        raise error
    await conclude(
        box,
        why,
        box.record,
        result,
        "fork.kept",
        children=running,
        failed_children=failed,
        standstill_ms=round(result.standstill_ms, 2),
    )


def _note_standstill(box: Actor, standstill_ms: float) -> None:
    """For the case that the host ends before the act does."""
    under_way = box.record.under_way
    assert under_way is not None  # noqa: S101 - we are in it
    box.books.note(replace(box.record, under_way=replace(under_way, standstill_ms=standstill_ms)))


def _check_fit_and_new(box: Actor, ids: list[str]) -> None:
    if taken := [one for one in ids if one in box.engine.actors]:
        raise Conflict(
            f"{', '.join(taken)} exists already", hint="give each child an id of its own"
        )
    if box.record.fingerprint is not None and box.state is State.PAUSED:
        check_fit(f"the saved state of {box.id}", box.record.fingerprint, box.engine, box.machine())


def _give_back_tickets(box: Actor, ids: list[str]) -> None:
    """Of those that did not come to run; the others give theirs back when they pause or end."""
    for one in ids:
        child = box.engine.actors.get(one)
        if child is None or child.state in (State.PAUSED, State.STOPPED):
            box.engine.admission.leave(one)


async def _born(box: Actor, why: Why, ids: list[str], source: Source) -> list[Actor]:
    """All children side by side; returns when each runs or has failed."""
    born: list[Actor] = []
    try:
        # One after the other: those before the one that fails have begun, and must end.
        born.extend(_enrolled(box, why, one) for one in ids)
    except Unavailable as exc:
        for child in born:  # beside: it may take until the disk takes something again
            box.engine.later(_not_begun(child, why, exc), f"the end of {child.id}")
        raise
    starts = [child.perform(partial(_start, child, why, source)) for child in born]
    try:
        await asyncio.gather(*starts, return_exceptions=True)
    except asyncio.CancelledError:
        if not box.engine.stopping:
            reason = Why("request", why.actor)
            ends = [child.overrule(partial(destroy, child, reason)) for child in born]
            await asyncio.gather(*ends, return_exceptions=True)
        raise
    return born


def _enrolled(box: Actor, why: Why, child_id: str) -> Actor:
    changed = {
        "sandbox_id": child_id,
        "op": f"{why.op}/{child_id}",
        "actor": why.actor,
        "recover_from": None,
    }
    order = box.record.order.model_copy(update=changed)
    return registry.enroll(box.engine, order, why, parent=box.record)


async def _not_begun(child: Actor, why: Why, failure: Unavailable) -> None:
    """The end of a child whose siblings could not be written down."""
    mine = Why(why.cause, why.actor)
    await child.perform(partial(end.start_failed, child, mine, failure))


async def _start(child: Actor, why: Why, source: Source) -> None:
    mine = Why(why.cause, why.actor)
    engine = child.engine
    about = {"runtools.sandbox.id": child.id, "runtools.cause": why.cause}
    try:
        with engine.tracing.span("sandbox.create", attributes=about) as span:
            phases = Phases(engine.clock, engine.tracing)
            async with AsyncExitStack() as undo:
                await first_start(child, mine, source, undo, phases, "child", span)
    except asyncio.CancelledError:
        raise
    except Exception as exc:
        raise await end.start_failed(child, mine, exc) from exc
    reach("fork.child")
