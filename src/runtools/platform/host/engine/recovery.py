"""What a start of the host makes of what the last one left: finish, undo, adopt, or say how it ended.

Nothing but the journals is believed, and of them only what the driver confirms. What no journal owns
is removed: networks, machines, folders. `docs/engine.md` has the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from runtools.errors import HostUnavailable, RunToolsError, SandboxStopped, Unavailable
from runtools.platform.core.ports.driver import Exit, Slot, VmmFailed
from runtools.platform.core.ports.host import Forked
from runtools.platform.core.states import Act, State
from runtools.platform.host.disk.trees import remove
from runtools.platform.host.engine import (
    claims,
    durable,
    journal,
    known,
    ledger,
    registry,
    snapshots,
    strictness,
)
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts import end, fork, rollback, snapshot
from runtools.platform.host.engine.acts.admit import load
from runtools.platform.host.engine.acts.create import create
from runtools.platform.host.engine.acts.destroy import destroy
from runtools.platform.host.engine.acts.pause import found_saved, is_saved, note_processes
from runtools.platform.host.engine.acts.resume import (
    back_to_sleep,
    became_running,
    greet,
    resume,
)
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.fitness import is_strict
from runtools.platform.host.engine.journal import JournalUnreadable, Life, UnderWay
from runtools.platform.host.engine.meeting import client
from runtools.platform.host.engine.phases import Phases
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.engine.words import how_it_ended
from runtools.platform.kit.clock import Backoff

log = logging.getLogger(__name__)

# A create that took the host down with it is tried again, but not for ever.
_ATTEMPTS = 2
_EXIT_SECONDS = 5.0
_AT_ONCE = 8
_NETWORK_ATTEMPTS = 3


class Recovery:
    """One start's work over all journals."""

    def __init__(self, engine: Engine, *, rebooted: bool) -> None:
        """``rebooted``: the machine itself was restarted, so no VMM of before can be left."""
        self._engine = engine
        self._rebooted = rebooted
        self._stuck: list[tuple[Actor, UnderWay]] = []
        self._unfinished: list[tuple[Actor, Callable[[], Coroutine[Any, Any, object]]]] = []
        self._after: dict[Act, Callable[[Actor, Why, UnderWay], Awaitable[None]]] = {
            Act.CREATE: self._create,
            Act.PAUSE: self._pause,
            Act.RESUME: self._resume,
            Act.SNAPSHOT: self._snapshot,
            Act.ROLLBACK: self._rollback,
            Act.FORK: self._fork,
            Act.DESTROY: self._destroy,
        }

    async def run(self) -> None:
        """Bring every sandbox into a state that is true, and reclaim the rest."""
        self._engine.taking_over = True
        boxes = self._load()
        await claims.settle(self._engine.driver, boxes)
        # Children of a fork before their parent, whose own recovery asks what became of them.
        born = [box for box in boxes if box.state is State.CREATING]
        await self._each(born, self._recover)
        await self._each([box for box in boxes if box not in born], self._recover)
        kept = {slot for box in boxes for slot in box.slots()}
        lost = await self._engine.network.reclaim(kept)
        if lost:
            log.info("removed %d networks that no sandbox owns", lost)
        users = {uid for box in boxes for uid in box.uids()} | self._engine.kept_uids
        lost = await self._engine.driver.reclaim(users)
        if lost:
            log.info("ended %d machines that no sandbox owns", lost)
        for folder in self._engine.places.captures.iterdir():
            remove(folder)
        for folder in self._engine.places.snapshots.glob(".*"):
            remove(folder)
        self._engine.taking_over = False
        for box in boxes:
            box.books.tell()
        for box, under_way in self._stuck:
            self._engine.later(self._again(box, under_way), f"trying again with {box.id}")
        # Only now, when all that runs is counted: there may be no room.
        for box, act in self._unfinished:
            self._engine.later(self._go_on(box, act), f"going on with {box.id}")
        for box in boxes:
            if box.state is State.STOPPED or not is_strict(self._engine):
                continue
            self._engine.later(strictness.hold(box), f"pausing {box.id}, should it be emulated")

    async def _each(self, boxes: list[Actor], do: Callable[[Actor], Awaitable[None]]) -> None:
        """Several at a time; one that cannot be recovered must not keep the others from it."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(box: Actor) -> None:
            async with room:
                try:
                    await do(box)
                except Exception:
                    # The edge of a loop: whatever one sandbox makes fail, the host comes up.
                    log.exception("%s could not be recovered; it stays as it is", box.id)
                    if box.record.under_way is not None:
                        self._stuck.append((box, box.record.under_way))
                    elif box.state is State.RUNNING:
                        # Of one that is gone, that it has ended, or lies saved, is tried until it holds.
                        box.vigil.begin()

        await asyncio.gather(*(one(box) for box in boxes))

    async def _again(self, box: Actor, under_way: UnderWay) -> None:
        """Recover one that could not be, as long as nobody has done something else with it."""
        backoff = Backoff(self._engine.clock)

        async def once() -> None:
            if box.record.under_way == under_way:
                await self._recover(box)

        while box.record.under_way == under_way:
            await backoff.wait()
            try:
                await box.perform(once)
            except (SandboxStopped, HostUnavailable):  # destroyed meanwhile, or the host goes down
                return
            except Exception:
                # The edge of a loop, like that of the start.
                log.exception("%s cannot be recovered yet", box.id)
            else:
                break  # what is under way still is gone on with
        for one, act in self._unfinished:
            if one is box:
                await self._go_on(box, act)

    def _load(self) -> list[Actor]:
        boxes = []
        for folder in sorted(self._engine.places.sandboxes.iterdir()):
            try:
                record = journal.load(folder)
            except JournalUnreadable as exc:
                log.error("a journal is damaged; what it is about is left alone: %s", exc)
                self._leave_alone(folder.name)
                continue
            if record is None:
                remove(folder)  # the journal comes before anything else: nothing was started
                continue
            box = registry.take_in(self._engine, record)
            try:
                ledger.mend(folder, record.entry)
            except OSError as exc:
                log.error("the ledger of %s must wait: %s", box.id, exc)
                box.books.owe()
            boxes.append(box)
        return boxes

    def _leave_alone(self, sandbox_id: str) -> None:
        """Keep machines from being ended, and their users from being given out."""
        places = self._engine.places
        lives = (places.life(sandbox_id, number) for number in places.lives(sandbox_id))
        owners = (self._engine.driver.owner(life) for life in lives)
        self._engine.kept_uids |= {uid for uid in owners if uid is not None}

    async def _recover(self, box: Actor) -> None:
        if self._rebooted and box.record.life is not None:
            box.books.note(replace(box.record, life=replace(box.record.life, slot=None)))
        await self._drop_strays(box)
        under_way = box.record.under_way
        if under_way is None:
            await self._at_rest(box)
        else:
            why = Why("host_restart", under_way.actor, under_way.op, under_way.what)
            await self._after[under_way.act](box, why, under_way)

    async def _drop_strays(self, box: Actor) -> None:
        """Machines that are not the present one: what a rollback or a create left."""
        present = box.record.life.number if box.record.life else None
        if box.state is State.CREATING:
            present = None
        for number in box.engine.places.lives(box.id):
            if number != present:
                stray = Life(number, 0, None, "")
                await box.engine.driver.kill(box.machine(stray))
                remove(box.engine.places.life(box.id, number))

    # --- at rest ---

    async def _at_rest(self, box: Actor) -> None:
        if box.state is State.RUNNING:
            if await self._is_live(box):
                await self._adopt(box)
            else:
                await self._gone(box)
        elif box.state is State.PAUSED:
            await self._forget_network(box)
            if not box.record.durable and self._rebooted:
                await self._lost(box)
            elif not box.record.durable:
                box.engine.later(durable.make(box), f"making {box.id} durable")

    async def _is_live(self, box: Actor) -> bool:
        return not self._rebooted and await box.engine.driver.is_live(box.machine())

    async def _adopt(self, box: Actor) -> None:
        """Go on with a machine that ran through our absence."""
        engine, life = box.engine, box.record.life
        assert life is not None  # noqa: S101 - it is live
        engine.admission.adopt(box.id, load(box))
        try:
            if life.slot is None:  # an earlier start could not serve it, nor save the sandbox
                raise Unavailable(f"the network of {box.id} is gone")
            await self._connected(box, life.slot)
        except (RunToolsError, OSError) as exc:
            log.error("%s cannot have its network back, so it is paused: %s", box.id, exc)
            await self._put_to_sleep(box, str(exc))
            return
        if box.guest is None:
            box.guest = client(
                engine, box.record.order.org_id, box.machine(), life.token, lambda: None
            )
        box.vigil.begin()

    async def _connected(self, box: Actor, slot: Slot) -> None:
        """Serve its network again; what fails may be over in a moment."""
        engine, backoff = self._engine, Backoff(self._engine.clock)
        for attempt in range(1, _NETWORK_ATTEMPTS + 1):
            try:
                await engine.network.adopt(slot, box.record.order.policy, box.refusals.add)
            except (RunToolsError, OSError):
                if attempt == _NETWORK_ATTEMPTS:
                    raise
                await backoff.wait()
            else:
                return

    async def _put_to_sleep(self, box: Actor, reason: str) -> None:
        """Save one to which nobody can speak any more: a resume makes it another network."""
        try:
            saved = await is_saved(box)
        except OSError as exc:
            await self._forget_network(box)
            raise Unavailable(f"{box.id} has no network and could not be saved: {exc}") from exc
        if not saved:
            if await box.engine.driver.is_live(box.machine()):
                await self._forget_network(box)
                raise Unavailable(f"{box.id} has no network and could not be saved: {reason}")
            await end.ended(box, "host_restart", reason, Exit(None, None))
            return
        await found_saved(box, Why("host_restart", PLATFORM), reason=reason)

    async def _gone(self, box: Actor) -> None:
        if self._rebooted:
            await end.ended(box, "host_restart", "the machine restarted under it", Exit(None, None))
            return
        if await is_saved(box):  # and the journal never heard of it
            await found_saved(box, Why("host_restart", PLATFORM))
            return
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                seen = await box.engine.driver.watch(box.machine())
        except TimeoutError:
            seen = Exit(None, None)
        await end.ended(box, "vmm_exit", how_it_ended(seen), seen)

    async def _lost(self, box: Actor) -> None:
        """A state that was not written through when the machine went down is not to be trusted."""
        reason = "the machine restarted before its saved state was durable; its disk is kept"
        await end.ended(box, "host_restart", reason, Exit(None, None))

    async def _forget_network(self, box: Actor) -> None:
        """A paused sandbox gets a new network when it is resumed.

        The old one is closed here: what is tried again later comes after all others were reclaimed.
        """
        life = box.record.life
        if life is None or life.slot is None:
            return
        try:
            await self._engine.network.close(life.slot)
        except (RunToolsError, OSError) as exc:
            log.error("what is left of the network of %s could not be removed: %s", box.id, exc)
        box.books.forget_slot(life.slot)  # also where the disk does not take it
        box.books.note(box.record)

    # --- in the middle of an act ---

    async def _create(self, box: Actor, why: Why, under_way: UnderWay) -> None:
        """Begin anew: nobody has had it yet. A child of a fork has nothing to begin from."""
        record = box.record
        assert record.life is not None  # noqa: S101 - it is journaled with the order
        box.books.note(replace(record, life=replace(record.life, slot=None)))
        if record.parent_id is not None:
            await end.start_failed(box, why, Unavailable("the platform restarted during the fork"))
        elif record.attempts >= _ATTEMPTS and not under_way.queued:
            await end.start_failed(box, why, Unavailable("the platform went down at every attempt"))
        else:
            again = record.attempts + (0 if under_way.queued else 1)
            box.books.note(replace(box.record, attempts=again))
            again_why = replace(why, cause="request")
            self._unfinished.append((box, partial(create, box, again_why)))

    async def _pause(self, box: Actor, why: Why, _: UnderWay) -> None:
        if self._rebooted:
            await self._lost(box)
            return
        if await self._is_live(box):
            await self._ask_again(box)
        if await is_saved(box):
            await found_saved(box, why)
        else:
            await self._undone(box, why)

    async def _ask_again(self, box: Actor) -> None:
        """How the processes stand of one that went on since that was written down, if it still does."""
        machine, life = box.machine(), box.record.life
        assert life is not None  # noqa: S101 - it is live
        known.forget(machine.folder)
        guest = client(box.engine, box.record.order.org_id, machine, life.token, lambda: None)
        try:
            await note_processes(box, guest, machine.folder)
        finally:
            await guest.close()

    async def _resume(self, box: Actor, why: Why, under_way: UnderWay) -> None:
        if under_way.queued:
            await self._wait_on(box, why)
        elif await self._is_live(box):
            await box.engine.driver.resume(box.machine())
            await self._adopt(box)
            if box.record.under_way is None:  # it has ended, or was saved again
                return
            box.vigil.end()
            self._unfinished.append((box, partial(_greeted, box, why)))
        elif self._rebooted and not box.record.durable:
            await self._lost(box)
        elif await is_saved(box):
            await self._undone(box, why)
        else:
            box.books.note(replace(box.record, state=State.RUNNING))  # it was: its state is used up
            await self._gone(box)

    async def _wait_on(self, box: Actor, why: Why) -> None:
        """It waited for room, and nothing of it was touched: whoever asked was told that it goes on."""
        await self._at_rest(box)
        if box.state is State.PAUSED:
            self._unfinished.append((box, partial(resume, box, replace(why, cause="request"))))

    async def _snapshot(self, box: Actor, why: Why, under_way: UnderWay) -> None:
        made = snapshots.find(box.engine.places, under_way.things[0])
        await self._stand_up(box)
        if made is not None:
            await snapshot.finish(box, why, made)
        else:
            await self._undone(box, why)

    async def _rollback(self, box: Actor, why: Why, under_way: UnderWay) -> None:
        await self._stand_up(box)
        if box.state is State.STOPPED:
            return
        if under_way.things == (rollback.SWITCHED,):
            await rollback.finish(box, why)
            if box.state is State.PAUSED:
                box.engine.later(durable.make(box), f"making {box.id} durable")
        else:
            await self._undone(box, why)

    async def _fork(self, box: Actor, why: Why, under_way: UnderWay) -> None:
        """The children were recovered before: those that run are whole, the others are stopped."""
        await self._stand_up(box)
        born = [box.engine.actors[one] for one in under_way.things if one in box.engine.actors]
        children = [child.books.report() for child in born]
        try:
            result = Forked(children=children, standstill_ms=under_way.standstill_ms)
            await fork.finish(box, why, result)
        except SandboxStopped:
            await self._undone(box, why)

    async def _destroy(self, box: Actor, why: Why, _: UnderWay) -> None:
        box.books.note(replace(box.record, under_way=None))
        await destroy(box, replace(why, cause="request"))

    async def _stand_up(self, box: Actor) -> None:
        """After an act that leaves the state as it was: a guest that was left still goes on."""
        if box.state is State.RUNNING and await self._is_live(box):
            with contextlib.suppress(VmmFailed):  # then it is gone, which is seen next
                await box.engine.driver.resume(box.machine())
        await self._at_rest(box)

    async def _undone(self, box: Actor, why: Why) -> None:
        """Commit that the act under way was not done, if the sandbox still lives."""
        if box.state is State.STOPPED:
            return
        record = replace(box.record, under_way=None)
        box.books.commit(why, record, failed="the platform restarted in the middle of it")
        if box.guest is None:
            await self._at_rest(box)

    @staticmethod
    async def _go_on(box: Actor, act: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do the rest of an act in the sandbox's own task, without making the start wait for it."""
        await box.perform(act)


async def _greeted(box: Actor, why: Why) -> None:
    """The end of a resume: nobody got the machine before, so it is renewed now."""
    try:
        await greet(box, Phases(box.engine.clock, box.engine.tracing))
    except (RunToolsError, VmmFailed) as exc:
        box.engine.admission.leave(box.id)
        await back_to_sleep(box)
        box.books.commit(
            Why("host_restart", PLATFORM), replace(box.record, under_way=None), failed=str(exc)
        )
        raise
    await became_running(box, why)
