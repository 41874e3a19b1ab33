"""The actor of one sandbox: does one act at a time, and is the only writer of its journal.

Acts are plain coroutines (`acts/`); they are queued here in the order in which they came. Only a
destroy does not wait: it cancels what is under way, because nothing of it will be kept. Execs and
file operations are no acts: they run beside, and hold a *use* that keeps the sandbox awake.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from runtools.errors import (
    HostUnavailable,
    OutcomeUnknown,
    RunToolsError,
    SandboxStopped,
    Unavailable,
)
from runtools.platform.core.ports.driver import Machine, Slot, VmmFailed
from runtools.platform.core.ports.host import Observed
from runtools.platform.core.states import Act, Move, State, check
from runtools.platform.host.engine.books import Books
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.journal import Life, Record, UnderWay
from runtools.platform.host.engine.refusals import Refusals
from runtools.platform.host.engine.starts import Starts
from runtools.platform.host.engine.turns import Turns
from runtools.platform.host.engine.vigil import Death, Vigil
from runtools.platform.host.engine.why import Why
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.kit.process import CommandFailed
from runtools.sdk.shapes.inside import Stats

log = logging.getLogger(__name__)

T = TypeVar("T")

_LAST_ACTS = (Act.PAUSE, Act.DESTROY)
"""What a host that goes down still begins."""

_NO_SLOT = Slot(namespace="", tap="", index=-1)


class Actor:
    """Owns one sandbox.

    Attributes:
        books: what is written of it.
        turns: what it does, one after the other.
        vigil: the wait for the end of its VMM.
        guest: connections to the agent inside, while there is a machine.
        starts: durable processes on their way to it.
        uses: execs and file operations under way.
        holds: what is under way and keeps it awake no longer than that.
        callers: what tells those of them that wait for the guest that it was put to sleep.
        is_put_to_sleep: the platform itself has paused it, and nobody has woken it since.
        touched: when the sandbox was last active (monotonic).
        stats: what the guest last said of itself.
        refusals: what it wanted to reach and was not let.
        irrevocable: the act under way has done what cannot be undone: it is not given up any more.
        held_up: why its end cannot be written down, where that has lasted for a while.
    """

    def __init__(self, engine: Engine, record: Record, died: Death) -> None:
        """``died`` is the act that follows when the VMM ends by itself."""
        self.engine = engine
        self.books = Books(engine, record)
        self.turns = Turns(record.sandbox_id, self._overruled)
        self.vigil = Vigil(self, died)
        self.guest: GuestClient | None = None
        self.starts = Starts(self._is_called_off)
        self.uses = self.holds = 0
        self.callers: set[Callable[[], None]] = set()
        self.is_put_to_sleep = False
        self.touched = engine.clock.monotonic()
        self.stats: Stats | None = None
        self.refusals = Refusals(self.books.folder, engine.clock, engine.meters.refused)
        self.irrevocable = False
        self.held_up: str | None = None

    # --- what it is ---

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self.record.sandbox_id

    @property
    def record(self) -> Record:
        """What the journal says."""
        return self.books.record

    @property
    def state(self) -> State:
        """The sandbox's state."""
        return self.record.state

    @property
    def folder(self) -> Path:
        """Where its journal lies."""
        return self.books.folder

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

    def latest(self) -> Observed:
        """The newest report; where none could be written yet, what it will say."""
        return self.books.latest()

    # --- what it does ---

    @contextlib.asynccontextmanager
    async def act(self, act: Act, why: Why, **more: Any) -> AsyncIterator[Move]:
        """Journal that an act is under way, and on failure that it is not any more.

        ``more`` are further fields of `UnderWay`. The body commits the end itself.

        Raises:
            Unavailable: the driver or the disk could not do it.
            HostUnavailable: the host goes down, and begins nothing that would leave something running.
        """
        if self.engine.stopping and act not in _LAST_ACTS:
            raise going_down()
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
            self.books.commit(why, begun)
        except OSError as exc:
            if act is not Act.DESTROY:
                raise self._failed(act, exc) from exc
            # It makes room, so it waits for none. After a crash in between it is asked for again.
            log.error("%s: that it is being destroyed is not journaled: %s", self.id, exc)
            self.books.record = begun
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
            self.books.commit(why, over, failed=reason)
        except OSError as exc:
            log.error("%s: the end of an act could not be journaled: %s", self.id, exc)
            self.books.record = over

    async def perform(
        self,
        run: Callable[[], Coroutine[Any, Any, T]],
        *,
        first: bool = False,
        asked: bool = False,
        for_room: bool = False,
        op: str = "",
    ) -> T:
        """Do an act in its turn, or ``first`` of those that wait. Cancelling the caller does not end it.

        Nothing comes before a destroy. One that was ``asked`` for is refused where what is before it
        is held up; or waits for room, unless it is ``for_room`` itself, under its ``op``.

        Raises:
            Unavailable: it is, and this was not begun.
        """
        if asked and self.held_up is not None:
            raise held_up(self, Unavailable)
        return await self.turns.perform(run, first=first, asked=asked, for_room=for_room, op=op)

    async def overrule(self, run: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do an act next: what is under way is cancelled, what waits is refused."""
        return await self.turns.overrule(run)

    def hold_up(self, reason: str) -> None:
        """Tell who waits for the act under way that its end cannot be written down yet; it goes on.

        What waits behind it is refused where somebody asked for it; the platform's own waits on.
        """
        self.held_up = reason
        self.turns.hold_up(held_up(self, OutcomeUnknown), lambda: held_up(self, Unavailable))
        self.books.wake()

    async def settled(self, timeout_seconds: float) -> None:
        """Wait until no act is under way, but not longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self.record.under_way is not None:
                    await self.changed()

    async def ends_within(self, timeout_seconds: float) -> None:
        """Wait for the end of a sandbox whose machine is gone already."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self.state is not State.STOPPED:
                    await self.changed()

    async def changed(self) -> None:
        """Wait for the next report."""
        await self.books.changed()

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Keep the sandbox from being paused as idle, and for as long again from then on."""
        self.uses += 1
        try:
            yield
        finally:
            self.uses -= 1
            self.touch()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the sandbox from being paused as idle just now, though nothing may come of it."""
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1

    def touch(self) -> None:
        """It was active just now."""
        self.touched = self.engine.clock.monotonic()

    def put_to_sleep(self) -> None:
        """Tell those who wait for the guest: nobody has asked for this pause, so nobody need wake it."""
        self.is_put_to_sleep = True
        for give_up in list(self.callers):
            give_up()

    def drop_guest(self) -> None:
        """Forget the connections to the agent."""
        if self.guest is not None:
            self.guest.cut_off()
            self.guest = None

    async def close(self, grace_seconds: float) -> None:
        """End the task; an act under way is given a moment to finish."""
        self.vigil.end()
        await self.refusals.close()
        await self.turns.close(grace_seconds)
        if self.guest is not None:
            await self.guest.close()
            self.guest = None

    def _is_called_off(self, process_id: str) -> bool:
        return self.record.is_called_off(process_id)

    def _overruled(self) -> RunToolsError:
        if self.engine.stopping:
            return going_down()
        return SandboxStopped(f"{self.id} was destroyed meanwhile")


def held_up(box: Actor, kind: type[RunToolsError]) -> RunToolsError:
    """That the end of an act cannot be written down; it is tried again for as long as the host is up."""
    operation = box.record.operation
    doing = operation.value if operation else "changing"
    return kind(
        f"{box.id} is {doing}, and its host cannot write down that this has ended: {box.held_up}",
        hint="make room on the host's disk (runtools df, runtools prune): it goes on by itself then",
    )


def going_down() -> RunToolsError:
    """That this host begins nothing any more: the next one does."""
    return HostUnavailable("the platform is going down", hint="try again when it is up")
