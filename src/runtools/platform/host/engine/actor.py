"""The actor of one sandbox: a task that does one act at a time, and the only writer of its journal.

Acts are plain coroutines (`acts/`); they are queued here in the order in which they came. Only a
destroy does not wait: it cancels what is under way, because nothing of it will be kept. Execs and
file operations are no acts: they run beside, and hold a *use* that keeps the sandbox awake.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from runtools.errors import (
    HostUnavailable,
    OutcomeUnknown,
    RunToolsError,
    SandboxStopped,
    Unavailable,
)
from runtools.platform.core.ports.driver import Exit, Machine, Slot, VmmFailed
from runtools.platform.core.ports.host import CreateOrder, Observed
from runtools.platform.core.states import Act, Move, State, check
from runtools.platform.host.disk import room
from runtools.platform.host.engine import journal, ledger
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.journal import Life, Record, UnderWay
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.refusals import Refusals
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.kit.clock import Backoff
from runtools.platform.kit.process import CommandFailed
from runtools.sdk.shapes.inside import Stats
from runtools.sdk.shapes.sandboxes import Cause, LedgerEntry, QueuePlace

log = logging.getLogger(__name__)

T = TypeVar("T")

PLATFORM = "platform"
"""The actor (in the ledger) of what nobody asked for."""


@dataclass(frozen=True, slots=True)
class Why:
    """Why an act is done.

    Attributes:
        cause, actor: as the ledger says it.
        op: the id by which a repeat is known; empty for acts of the platform's own.
        what: what the op was used for, so that it is not used for something else.
    """

    cause: Cause
    actor: str
    op: str = ""
    what: str = ""


_LAST_ACTS = (Act.PAUSE, Act.DESTROY)
"""What a host that goes down still begins."""

_NO_SLOT = Slot(namespace="", tap="", index=-1)


@dataclass(slots=True)
class _Job:
    """An act that waits its turn; it is done in the context (the trace, that is) of who asked for it.

    Attributes:
        asked: somebody waits for it who is told rather than kept waiting for a full disk.
    """

    run: Callable[[], Coroutine[Any, Any, Any]]
    done: asyncio.Future[Any]
    context: Context
    asked: bool = False


class Actor:
    """Owns one sandbox.

    Attributes:
        record: what the journal says.
        guest: connections to the agent inside, while there is a machine.
        uses: execs and file operations under way.
        touched: when the sandbox was last active (monotonic).
        stats: what the guest last said of itself.
        refusals: what it wanted to reach and was not let.
        irrevocable: the act under way has done what cannot be undone: it is not given up any more.
        held_up: why its end cannot be written down, where that has lasted for a while.
    """

    def __init__(self, engine: Engine, record: Record, died: Death) -> None:
        """``died`` is the act that follows when the VMM ends by itself."""
        self.engine = engine
        self.record = record
        self.guest: GuestClient | None = None
        self.uses = 0
        self.touched = engine.clock.monotonic()
        self.stats: Stats | None = None
        self.refusals = Refusals(
            engine.places.sandbox(record.sandbox_id), engine.clock, engine.meters.refused
        )
        self.irrevocable = False
        self.held_up: str | None = None
        self._died = died
        self._jobs: deque[_Job] = deque()
        self._bell = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._current: asyncio.Task[Any] | None = None
        self._doing: _Job | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._final = False
        self._untold: deque[LedgerEntry] = deque()
        self._is_late = False

    # --- what it is ---

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self.record.sandbox_id

    @property
    def state(self) -> State:
        """The sandbox's state."""
        return self.record.state

    @property
    def folder(self) -> Path:
        """Where its journal lies."""
        return self.engine.places.sandbox(self.id)

    @property
    def overlay(self) -> Path:
        """The disk of its present machine."""
        assert self.record.life is not None  # noqa: S101 - acts check the state
        return self.engine.places.overlay(self.id, self.record.life.number)

    def uids(self) -> set[int]:
        """The user ids that its machines have."""
        spare = self.record.under_way.spare if self.record.under_way else None
        return {life.uid for life in (self.record.life, spare) if life is not None}

    def slots(self) -> set[Slot]:
        """The networks that its machines have."""
        spare = self.record.under_way.spare if self.record.under_way else None
        lives = (self.record.life, spare)
        return {life.slot for life in lives if life is not None and life.slot is not None}

    def machine(self, life: Life | None = None) -> Machine:
        """What the driver is told of one of its machines; by default the present one."""
        life = life or self.record.life
        assert life is not None, f"{self.id} has no machine"  # noqa: S101 - acts check the state
        engine, sizes = self.engine, self.record.order.sizes
        image = engine.templates.image(self.record.order.template_version_id)
        return Machine(
            id=self.id if life.number == 1 else f"{self.id}-{life.number}",
            folder=engine.places.life(self.id, life.number),
            vcpus=sizes.vcpus,
            memory_mb=sizes.memory_mb,
            base=image.base,
            kernel=image.kernel,
            initrd=image.initrd,
            overlay=engine.places.overlay(self.id, life.number),
            uid=life.uid,
            slot=life.slot or _NO_SLOT,
            boot_token=life.token,
        )

    # --- what it writes ---

    def commit(self, why: Why, record: Record, **detail: Any) -> Observed:
        """Make a change: the journal first, then the ledger and the report that follow from it."""
        self.note(self._entered(why, record, detail))
        return self._tell()

    def finish(
        self,
        why: Why,
        record: Record,
        result: BaseModel | None = None,
        point: str | None = None,
        **detail: Any,
    ) -> Observed:
        """Commit the end of the act under way; a repeat of it is answered from now on.

        ``result`` is what a repeat is answered, by default the report; ``point`` names the crash
        point between the two.

        Raises:
            OSError: it could not be written; the act is under way as before.
        """
        record = self._entered(why, replace(record, under_way=None), detail)
        self.engine.ops.keep(why.op, why.what, result or self.engine.reports.preview(record))
        if point is not None:
            reach(point)
        try:
            self.note(record)
        except OSError:
            self.engine.ops.withdraw(why.op)
            raise
        return self._tell()

    def owe(self) -> None:
        """Have the ledger be given its last entry with the next report: it could not be."""
        self._untold.append(self.record.entry)

    def _tell(self) -> Observed:
        """Write what follows from the journal.

        It never fails: the change is made. A host that ends before it could be written mends the
        ledger and reports anew at its next start.
        """
        self.owe()
        return self.tell()

    def tell(self) -> Observed:
        """Report how it stands; what the disk refuses now is written later."""
        try:
            self._write_untold()
        except OSError as exc:
            log.error("%s: ledger and report must wait: %s", self.id, exc)
            if not self._is_late:
                self._is_late = True
                self.engine.later(self._tell_later(), f"telling the end of an act of {self.id}")
            return self.engine.reports.preview(self.record)
        return self.latest()

    def _write_untold(self) -> None:
        while self._untold:
            ledger.append(self.folder, self._untold[0])
            self._untold.popleft()
        self.report()
        self._is_late = False

    async def _tell_later(self) -> None:
        backoff = Backoff(self.engine.clock)
        while self._is_late:
            await backoff.wait()
            try:
                self._write_untold()
            except OSError as exc:
                log.error("%s: ledger and report must still wait: %s", self.id, exc)

    def _entered(self, why: Why, record: Record, detail: dict[str, Any]) -> Record:
        """The record with the ledger entry that it makes."""
        entry = LedgerEntry(
            seq=self.record.entry.seq + 1,
            at=self.engine.clock.now(),
            sandbox_id=self.id,
            state=record.state.value,
            operation=record.operation.value if record.operation else None,
            cause=why.cause,
            actor=why.actor,
            detail=detail,
        )
        return replace(record, entry=entry)

    def note(self, record: Record) -> None:
        """Journal something that is nobody's business but ours: no ledger entry, no report."""
        journal.save(self.folder, record)
        self.record = record

    def keep_order(self, order: CreateOrder, **more: Any) -> None:
        """Journal what is asked of the sandbox from now on; ``more`` are further fields of the record.

        Raises:
            Unavailable: the disk does not take it; all is as before.
        """
        try:
            self.note(replace(self.record, order=order, **more))
        except OSError as exc:
            raise room.refused(f"the change of {self.id}", exc) from exc

    def keep_life(self, life: Life) -> None:
        """Journal the present machine as it has become."""
        self.note(replace(self.record, life=life))

    def keep_spare(self, life: Life) -> None:
        """Journal the second machine of the act under way as it has become."""
        assert self.record.under_way is not None  # noqa: S101 - only an act makes one
        self.note(replace(self.record, under_way=replace(self.record.under_way, spare=life)))

    def forget_slot(self, slot: Slot) -> None:
        """Know nothing any more of a network that was closed: its number may soon be another's.

        In memory, at once and whatever the disk says; the next write says it too.
        """
        record, under_way = self.record, self.record.under_way
        if record.life is not None and record.life.slot == slot:
            record = replace(record, life=replace(record.life, slot=None))
        if under_way is not None and under_way.spare is not None and under_way.spare.slot == slot:
            spare = replace(under_way.spare, slot=None)
            record = replace(record, under_way=replace(under_way, spare=spare))
        self.record = record

    def latest(self) -> Observed:
        """The newest report; where none could be written yet, what it will say."""
        return self.engine.reports.latest(self.id) or self.engine.reports.preview(self.record)

    def report(self, queue: QueuePlace | None = None) -> Observed:
        """Tell the followers how it stands."""
        seen = self.engine.reports.publish(self.record, queue)
        self._wake()
        return seen

    def _wake(self) -> None:
        """Have those look again who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def act(self, act: Act, why: Why, **more: Any) -> AsyncIterator[Move]:
        """Journal that an act is under way, and on failure that it is not any more.

        ``more`` are further fields of `UnderWay`. The body commits the end itself.

        Raises:
            Unavailable: the driver or the disk could not do it.
            HostUnavailable: the host goes down, and begins nothing that would leave something running.
        """
        if self.engine.stopping and act not in _LAST_ACTS:
            raise _going_down()
        move = check(act, self.state, self.id)
        about = {"runtools.sandbox.id": self.id, "runtools.cause": why.cause}
        traced = self.engine.tracing.span(f"sandbox.{act}", attributes=about)
        with traced, self.engine.meters.act(act):
            async with self._journaled(act, why, **more):
                yield move

    @contextlib.asynccontextmanager
    async def _journaled(self, act: Act, why: Why, **more: Any) -> AsyncIterator[None]:
        under_way = UnderWay(act, why.op, why.actor, why.what, **more)
        begun = replace(self.record, under_way=under_way)
        try:
            self.commit(why, begun)
        except OSError as exc:
            if act is not Act.DESTROY:
                raise self._failed(act, exc) from exc
            # It makes room, so it waits for none. After a crash in between it is asked for again.
            log.error("%s: that it is being destroyed is not journaled: %s", self.id, exc)
            self.record = begun
        try:
            yield
        except BaseException as exc:
            cut_off = self.engine.stopping and isinstance(exc, asyncio.CancelledError)
            if self.record.under_way is not None and not self.irrevocable and not cut_off:
                reason = str(exc) or type(exc).__name__
                self._give_up(why, reason)
            if isinstance(exc, VmmFailed | OSError | CommandFailed):
                raise self._failed(act, exc) from exc
            raise
        finally:
            self.irrevocable, self.held_up = False, None

    def _failed(self, act: Act, exc: Exception) -> Unavailable:
        return Unavailable(
            f"{act} of {self.id} failed: {exc}",
            hint=f"runtools sandbox why {self.id} tells how it stands",
        )

    def _give_up(self, why: Why, reason: str) -> None:
        """Say that the act under way failed; on a full disk at least to ourselves."""
        over = replace(self.record, under_way=None)
        try:
            self.commit(why, over, failed=reason)
        except OSError as exc:
            log.error("%s: the end of an act could not be journaled: %s", self.id, exc)
            self.record = over

    # --- what it does ---

    async def perform(
        self,
        run: Callable[[], Coroutine[Any, Any, T]],
        *,
        first: bool = False,
        asked: bool = False,
    ) -> T:
        """Do an act in its turn, or ``first`` of those that wait. Cancelling the caller does not end it.

        Nothing comes before a destroy. One that was ``asked`` for is refused where what is before it
        is held up.

        Raises:
            Unavailable: it is, and this was not begun.
        """
        if asked and self.held_up is not None:
            raise held_up(self, Unavailable)
        job = self._job(run)
        job.asked = asked
        if first and not self._final:
            self._jobs.appendleft(job)
        else:
            self._jobs.append(job)
        self._ring()
        result: T = await asyncio.shield(job.done)
        return result

    def hold_up(self, reason: str) -> None:
        """Tell who waits for the act under way that its end cannot be written down yet; it goes on.

        What waits behind it is refused where somebody asked for it; the platform's own waits on.
        """
        self.held_up = reason
        if self._doing is not None and not self._doing.done.done():
            self._doing.done.set_exception(held_up(self, OutcomeUnknown))
        waiting, self._jobs = self._jobs, deque(job for job in self._jobs if not job.asked)
        for job in waiting:
            if job.asked:
                job.done.set_exception(held_up(self, Unavailable))
        self._wake()

    async def overrule(self, run: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do an act next: what is under way is cancelled, what waits is refused."""
        if self._final:
            return await self.perform(run)
        self._final = True
        job = self._job(run)
        job.done.add_done_callback(self._overruling_over)
        waiting, self._jobs = self._jobs, deque([job])
        for other in waiting:
            other.done.set_exception(self._overruled())
        if self._current is not None:
            self._current.cancel()
        self._ring()
        result: T = await asyncio.shield(job.done)
        return result

    async def settled(self, timeout_seconds: float) -> None:
        """Wait until no act is under way, but not longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self.record.under_way is not None:
                    await self._changed.wait()

    async def ends_within(self, timeout_seconds: float) -> None:
        """Wait for the end of a sandbox whose machine is gone already."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self.state is not State.STOPPED:
                    await self.changed()

    async def changed(self) -> None:
        """Wait for the next report."""
        await self._changed.wait()

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Keep the sandbox from being paused as idle."""
        self.uses += 1
        try:
            yield
        finally:
            self.uses -= 1
            self.touched = self.engine.clock.monotonic()

    def watch(self) -> None:
        """Begin to wait for the end of the present machine's VMM."""
        self.unwatch()
        assert self.record.life is not None  # noqa: S101 - acts check the state
        self._watcher = asyncio.create_task(self._watch(self.record.life))

    def unwatch(self) -> None:
        """Stop waiting: the end that comes is one of ours."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def drop_guest(self) -> None:
        """Forget the connections to the agent."""
        if self.guest is not None:
            self.engine.later(self.guest.close(), f"closing connections to {self.id}")
            self.guest = None

    async def close(self, grace_seconds: float) -> None:
        """End the task; an act under way is given a moment to finish."""
        self.unwatch()
        await self.refusals.close()
        current = self._current
        if current is not None:
            _, late = await asyncio.wait({current}, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.wait({current})
        if self._task is not None:
            self._task.cancel()
        for job in self._jobs:
            job.done.set_exception(self._overruled())
        if self.guest is not None:
            await self.guest.close()
            self.guest = None

    def _job(self, run: Callable[[], Coroutine[Any, Any, Any]]) -> _Job:
        done = asyncio.get_running_loop().create_future()
        # Read, so that a failure that nobody waits for any more is no noise.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        return _Job(run, done, copy_context())

    def _ring(self) -> None:
        self._bell.set()
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), name=self.id)

    async def _serve(self) -> None:
        while True:
            while not self._jobs:
                self._bell.clear()
                await self._bell.wait()
            job = self._jobs.popleft()
            self._current, self._doing = asyncio.create_task(job.run(), context=job.context), job
            try:
                await asyncio.wait({self._current})
                self._hand_over(self._current, job)
            finally:
                self._current = self._doing = None

    def _hand_over(self, task: asyncio.Task[Any], job: _Job) -> None:
        if job.done.done():  # it was held up: its caller has an answer
            _ = task.cancelled() or task.exception()
        elif task.cancelled():
            job.done.set_exception(self._overruled())
        elif (failure := task.exception()) is not None:
            job.done.set_exception(failure)
        else:
            job.done.set_result(task.result())

    def _overruling_over(self, _: asyncio.Future[Any]) -> None:
        self._final = False

    def _overruled(self) -> RunToolsError:
        if self.engine.stopping:
            return _going_down()
        return SandboxStopped(f"{self.id} was destroyed meanwhile")

    async def _watch(self, life: Life) -> None:
        backoff = Backoff(self.engine.clock)
        while True:
            try:
                end = await self.engine.driver.watch(self.machine(life))
            except Exception:
                # The edge of a loop: nobody else would see its end.
                log.exception("%s: its machine cannot be watched yet", self.id)
            else:
                self._watcher = None
                self.engine.later(self._see_off(life, end), f"the end of {self.id}")
                return
            await backoff.wait()

    async def _see_off(self, life: Life, end: Exit) -> None:
        """Have an end dealt with; what fails of that is done again until it holds.

        Nobody else would do it: the sandbox would stay `running` without a machine.
        """
        backoff = Backoff(self.engine.clock)
        while True:
            try:
                await self.perform(lambda: self._died(self, life.number, end))
            except (SandboxStopped, HostUnavailable):  # destroyed meanwhile, or the host goes down
                return
            except Exception:
                # The edge of a loop that must not end before the sandbox has.
                log.exception("%s: its end could not be journaled", self.id)
            else:
                return
            await backoff.wait()


def held_up(box: Actor, kind: type[RunToolsError]) -> RunToolsError:
    """That the end of an act cannot be written down; it is tried again for as long as the host is up."""
    operation = box.record.operation
    doing = operation.value if operation else "changing"
    return kind(
        f"{box.id} is {doing}, and its host cannot write down that this has ended: {box.held_up}",
        hint="make room on the host's disk (runtools df, runtools prune): it goes on by itself then",
    )


def _going_down() -> RunToolsError:
    return HostUnavailable("the platform is going down", hint="try again when it is up")


Death = Callable[[Actor, int, Exit], Coroutine[Any, Any, None]]
