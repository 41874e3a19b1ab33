"""The acts of the host port: each call is checked, made an act of one sandbox, and done once per op."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from runtools.errors import (
    Conflict,
    HostUnavailable,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    SandboxStopped,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.core import ids
from runtools.platform.core.ports.host import Child, CreateOrder, Forked, Kept, Observed
from runtools.platform.core.states import State
from runtools.platform.host.engine import registry, snapshots
from runtools.platform.host.engine.actor import Actor, held_up
from runtools.platform.host.engine.acts.create import create, recoverable
from runtools.platform.host.engine.acts.destroy import destroy
from runtools.platform.host.engine.acts.fork import fork
from runtools.platform.host.engine.acts.pause import pause
from runtools.platform.host.engine.acts.queued import (
    deadline,
    is_queued,
    still_queued,
    unless_queued,
)
from runtools.platform.host.engine.acts.resume import resume
from runtools.platform.host.engine.acts.rollback import rollback
from runtools.platform.host.engine.acts.snapshot import snapshot
from runtools.platform.host.engine.budget import load_of
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.fitness import check_isolation
from runtools.platform.host.engine.why import Why

T = TypeVar("T")

_SNAPSHOT_ID = re.compile(r"snp_[a-z0-9]{1,40}")


class Acting:
    """The part of the host port that changes sandboxes."""

    engine: Engine

    def end_owed(self) -> None:
        """See `Ends`."""
        raise NotImplementedError

    async def create(self, order: CreateOrder) -> Observed:
        """Returns when it runs, or once it has its place in the queue."""
        why = Why("request", order.actor, order.op, f"create {order.sandbox_id}")
        known = self.engine.actors.get(order.sandbox_id)
        if known is None:
            if self.engine.stopping:
                raise HostUnavailable("the platform is going down", hint="try again when it is up")
            box = self._enrolled(order, why)
            making = asyncio.ensure_future(box.perform(lambda: create(box, why)))
            # Read, because nobody waits for it any more once it has its place in the queue.
            making.add_done_callback(lambda done: done.cancelled() or done.exception())
        elif known.record.order.op != order.op:
            raise Conflict(f"{order.sandbox_id} exists already")
        else:
            box, making = known, None
        return await _running_or_queued(box, making)

    async def pause(self, sandbox_id: str, op: str, actor: str) -> Observed:
        """Save it to disk; one that waits for room to go on waits no more."""
        return await self._act(sandbox_id, op, actor, "pause", _wait_no_more)

    async def resume(
        self, sandbox_id: str, op: str, actor: str, room_seconds: float | None = None
    ) -> Observed:
        """Go on from the disk.

        Raises:
            WaitsForRoom: it does still, and goes on waiting.
        """
        box = self.engine.actor(sandbox_id)
        going_on = self._act(sandbox_id, op, actor, "resume", _go_on)
        try:
            return await unless_queued(box, going_on, deadline(room_seconds))
        except WaitsForRoom:
            # What is under way goes on for it, too: behind that, it need not be tried once more.
            box.turns.wait_no_more(lambda: still_queued(box, WaitsForRoom), op)
            raise

    async def destroy(self, sandbox_id: str, op: str, actor: str) -> Observed:
        """Remove it, whatever is under way."""
        box = self.engine.actor(sandbox_id)
        why = Why("request", actor, op, f"destroy {sandbox_id}")
        return await self.engine.ops.once(
            op, why.what, Observed, lambda: box.overrule(lambda: destroy(box, why))
        )

    async def snapshot(self, sandbox_id: str, op: str, actor: str, snapshot_id: str) -> Kept:
        """Keep its state."""
        box = self.engine.actor(sandbox_id)
        if _SNAPSHOT_ID.fullmatch(snapshot_id) is None:
            raise InvalidRequest(f"{snapshot_id[:80]!r} is no snapshot id")
        why = Why("request", actor, op, f"snapshot {sandbox_id} as {snapshot_id}")
        return await self.engine.ops.once(
            op, why.what, Kept, lambda: _in_turn(box, why, lambda: snapshot(box, why, snapshot_id))
        )

    async def rollback(self, sandbox_id: str, op: str, actor: str, snapshot_id: str) -> Observed:
        """Go back to a kept state."""
        box = self.engine.actor(sandbox_id)
        why = Why("request", actor, op, f"rollback {sandbox_id} to {snapshot_id}")
        back = partial(self._with_ends, partial(rollback, box, why, snapshot_id))
        return await self.engine.ops.once(op, why.what, Observed, lambda: _in_turn(box, why, back))

    async def fork(self, sandbox_id: str, op: str, actor: str, children: list[Child]) -> Forked:
        """Make children of it."""
        box = self.engine.actor(sandbox_id)
        _check_ids(*(child.sandbox_id for child in children))
        names = " ".join(child.sandbox_id for child in children)
        why = Why("request", actor, op, f"fork {sandbox_id} into {names}")
        forked = partial(self._with_ends, partial(fork, box, why, children))
        return await self.engine.ops.once(op, why.what, Forked, lambda: _in_turn(box, why, forked))

    async def _with_ends(self, act: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What was to end in what an act has captured, or goes back to, is to end in what comes of it."""
        try:
            return await act()
        finally:
            self.end_owed()

    async def drop_snapshot(self, snapshot_id: str) -> None:
        """Remove a kept state."""
        if _SNAPSHOT_ID.fullmatch(snapshot_id) is None:
            raise NotFound(f"this host has no snapshot {snapshot_id[:80]}")
        await snapshots.drop(self.engine, snapshot_id)

    async def set_limits(
        self, sandbox_id: str, idle_timeout_seconds: int, max_lifetime_seconds: int | None
    ) -> None:
        """From now on it is paused after so long."""
        limits = {
            "idle_timeout_seconds": idle_timeout_seconds,
            "max_lifetime_seconds": max_lifetime_seconds,
        }
        await self._change_order(self.engine.actor(sandbox_id), limits)

    async def hand_over(self, sandbox_id: str, org_id: str) -> None:
        """From now on it is another org's."""
        box = self.engine.actor(sandbox_id)
        await self._change_order(box, {"org_id": org_id})
        if box.guest is not None:
            box.guest.hold_in(self.engine.outputs.of(org_id))

    # --- how ---

    @staticmethod
    async def _change_order(box: Actor, changes: dict[str, Any]) -> None:
        async def change() -> None:
            if box.state is State.STOPPED:
                raise SandboxStopped(f"{box.id} has stopped")
            box.books.keep_order(box.record.order.model_copy(update=changes))

        # What waits for room may wait for long, and nothing of it is touched yet.
        await (change() if is_queued(box) else box.perform(change, asked=True))

    def _enrolled(self, order: CreateOrder, why: Why) -> Actor:
        """Refuse what can never be started before anything is written down."""
        _check_ids(order.sandbox_id)
        check_isolation(self.engine, order.require_isolation)
        if order.recover_from is not None:
            recoverable(self.engine, order.recover_from)
        self.engine.templates.image(order.template_version_id)
        factor = self.engine.settings.memory_factor
        ask = load_of(order.sizes.memory_mb, factor)
        self.engine.admission.check(ask, queue=order.queue)
        return registry.enroll(self.engine, order, why)

    async def _act(
        self,
        sandbox_id: str,
        op: str,
        actor: str,
        verb: str,
        act: Callable[[Actor, Why], Coroutine[Any, Any, Observed]],
    ) -> Observed:
        box = self.engine.actor(sandbox_id)
        why = Why("request", actor, op, f"{verb} {sandbox_id}")
        return await self.engine.ops.once(op, why.what, Observed, lambda: act(box, why))


async def _go_on(box: Actor, why: Why) -> Observed:
    _check_not_held_up(box, why)
    return await box.perform(partial(resume, box, why), asked=True, for_room=True, op=why.op)


async def _wait_no_more(box: Actor, why: Why) -> Observed:
    """Pause it. Whoever waits for room with it is told, and nothing that waits has it go on again."""
    _check_not_held_up(box, why)
    waits = is_queued(box) and box.state is State.PAUSED
    if waits:
        box.engine.admission.withdraw(box.id, _paused_again(box))
        box.turns.wait_no_more(lambda: _paused_again(box))
    return await box.perform(partial(pause, box, why), first=waits, asked=True)


def _paused_again(box: Actor) -> Conflict:
    return Conflict(f"{box.id} was paused again before there was room for it to go on")


async def _in_turn(box: Actor, why: Why, act: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do an act, unless what is under way there is held up, or waits for room: nobody is to wait for that.

    Raises:
        OutcomeUnknown: it is a repeat of what is held up.
        Unavailable: something else is held up, and this was not begun.
        CapacityExhausted: it waits for room, and this was not begun.
    """
    _check_not_held_up(box, why)
    if is_queued(box):
        raise still_queued(box)
    return await box.perform(act, asked=True)


def _check_not_held_up(box: Actor, why: Why) -> None:
    under_way = box.record.under_way
    if box.held_up is not None and under_way is not None and under_way.op == why.op:
        raise held_up(box, OutcomeUnknown)


async def _running_or_queued(box: Actor, making: asyncio.Future[None] | None) -> Observed:
    """Wait until a create has come that far.

    Raises:
        OutcomeUnknown: that it failed cannot be written down.
        RunToolsError: it failed.
    """
    while box.state is State.CREATING and not is_queued(box):
        if making is None and box.held_up is not None:
            raise held_up(box, OutcomeUnknown)
        changed = asyncio.ensure_future(box.changed())
        await asyncio.wait(
            {changed, making} if making else {changed}, return_when=asyncio.FIRST_COMPLETED
        )
        changed.cancel()
        if making is not None and making.done():
            break
    if making is not None and box.state is not State.RUNNING and not is_queued(box):
        await making
    ending = box.record.ending
    if box.state is State.STOPPED and not box.record.destroyed:
        reason, hint = ending.reason if ending else "", f"runtools sandbox why {box.id} tells more"
        if ending is not None and ending.cause == "start_failed":
            raise Unavailable(f"{box.id} did not start: {reason}", hint=hint)
        raise SandboxStopped(f"{box.id} ran and has stopped: {reason}", hint=hint)
    return box.latest()


def _check_ids(*sandbox_ids: str) -> None:
    """Make sure that ids are ids: they name folders, and children must differ."""
    for one in sandbox_ids:
        if not ids.is_sandbox_id(one):
            raise InvalidRequest(f"{one[:80]!r} is no sandbox id")
    if not sandbox_ids or len(set(sandbox_ids)) != len(sandbox_ids):
        raise InvalidRequest("a fork needs ids of children that differ, and at least one")
