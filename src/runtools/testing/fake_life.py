"""The life of fake sandboxes: states, reports, the journal of ops, queueing, and failure on demand.

One act at a time changes a sandbox; a repeat of an op is answered from the journal; reports are numbered
and never lost; creates beyond the capacity queue. Tests make it fail by name: `unavailable`, `refuse`,
`lose_answer`, `die`, `forget`, `restart`, and `gate`, which holds every start while it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from runtools.errors import (
    CapacityExhausted,
    Conflict,
    HostUnavailable,
    NotFound,
    RunToolsError,
    SandboxStopped,
    WaitsForRoom,
)
from runtools.platform.core import states
from runtools.platform.core.ports.host import (
    Child,
    CreateOrder,
    Observed,
)
from runtools.platform.core.ports.metrics import Family
from runtools.platform.core.states import Act, State
from runtools.platform.host.engine.meters import Meters
from runtools.platform.kit.clock import Clock, SystemClock
from runtools.sdk.shapes.egress import EgressRefusal
from runtools.sdk.shapes.events import HostView
from runtools.sdk.shapes.inside import ExecRequest, ExecResult, Stats
from runtools.sdk.shapes.sandboxes import (
    Cause,
    Ending,
    Isolation,
    QueuePlace,
    StartedFrom,
    Timings,
)
from runtools.testing.fake_inside import Inside

T = TypeVar("T")


@dataclass
class Machine:
    """A fake sandbox."""

    order: CreateOrder
    inside: Inside
    state: State = State.CREATING
    latest: Observed | None = None
    egress_generation: int = 0
    refused: list[EgressRefusal] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    done: dict[str, ExecResult] = field(default_factory=dict)
    unbegun: set[str] = field(default_factory=set)
    last_stats: Stats | None = None


class FakeLife:
    """See the module."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        capacity: int = 1000,
        isolation: Isolation = "hardware",
        script: Callable[[ExecRequest], ExecResult] | None = None,
    ) -> None:
        self.folder = folder
        self.clock = clock or SystemClock()
        self.meters = Meters(self.clock)
        self.capacity = capacity
        self.isolation = isolation
        self.script = script
        self.unavailable = False
        self.epoch, self.seq = 1, 0
        self.machines: dict[str, Machine] = {}
        self.calls: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.births = asyncio.Event()
        """Children of forks stay `creating` while it is cleared."""
        self.births.set()
        self._log: list[Observed] = []
        self._news = asyncio.Condition()
        self._journal: dict[str, asyncio.Future[Any]] = {}
        self._forks: dict[str, list[Child]] = {}
        self._refusals: deque[RunToolsError] = deque()
        self._lost_answers = 0

    # --- how tests make it fail ---

    def refuse(self, error: RunToolsError) -> None:
        """The next act is refused so, and nothing is done."""
        self._refusals.append(error)

    async def crowd_out(self, sandbox_id: str) -> None:
        """The paused sandbox waits for room, and the next act is told so."""
        place, machine = (
            QueuePlace(position=1, estimated_wait_seconds=None),
            self.machines[sandbox_id],
        )
        await self._report(machine, State.PAUSED, "queued", "request", "host", queue=place)
        self.refuse(WaitsForRoom(f"{sandbox_id} waits for room on its host"))

    def lose_answer(self) -> None:
        """The next act is done, and its answer never arrives."""
        self._lost_answers += 1

    async def die(self, sandbox_id: str, reason: str, *, recoverable: bool = True) -> None:
        """The sandbox's machine ends by itself."""
        until = self.clock.now() + timedelta(hours=24) if recoverable else None
        ending = Ending(
            cause="vmm_exit", reason=reason, console_tail=["panic"], recoverable_until=until
        )
        machine = self.machines[sandbox_id]
        await machine.inside.processes.kill()
        await self._report(machine, State.STOPPED, None, "vmm_exit", "host", ending=ending)

    async def idle(self, sandbox_id: str) -> None:
        """The sandbox is paused for idleness."""
        machine = self.machines[sandbox_id]
        await self._report(machine, State.PAUSED, None, "idle", "host")

    def forget(self, sandbox_id: str) -> None:
        """The host has no trace of the sandbox any more."""
        del self.machines[sandbox_id]

    async def leave(self) -> None:
        """Stop answering; who follows the reports is told."""
        async with self._news:
            self.unavailable = True
            self._news.notify_all()

    async def restart(self) -> None:
        """The host's process starts again: a new epoch, the journal and machines kept."""
        self.epoch, self.seq, self._log = self.epoch + 1, 0, []
        for machine in self.machines.values():
            if machine.latest is not None:
                await self._append(machine.latest, machine)

    # --- the port ---

    async def view(self) -> HostView:
        """Identity and capacity."""
        self._answer("view", "")
        states_ = [machine.state for machine in self.machines.values()]
        return HostView(
            id="hst_fake",
            name="fake",
            driver="fake",
            accelerator="none",
            isolation=self.isolation,
            alive=True,
            vcpus=2,
            memory_total_mb=4096,
            memory_free_mb=2048,
            disk_free_bytes=1 << 34,
            sandboxes_running=states_.count(State.RUNNING),
            sandboxes_paused=states_.count(State.PAUSED),
            queued=states_.count(State.CREATING),
        )

    async def metrics(self) -> list[Family]:
        """What was counted."""
        self._answer("metrics", "")
        return self.meters.told()

    async def reports(self, epoch: int, seq: int) -> AsyncIterator[Observed]:
        """Reports after a place; for a foreign epoch the latest of every sandbox, then what follows."""
        at, mine = seq, self.epoch
        if epoch != mine:
            at = self.seq
            known = [m.latest for m in self.machines.values() if m.latest is not None]
            for observed in sorted(known, key=lambda each: each.seq):
                yield observed
        while True:
            async with self._news:
                while not self.unavailable and self.epoch == mine and len(self._log) <= at:
                    await self._news.wait()
                if self.unavailable or self.epoch != mine:
                    raise HostUnavailable("the fake host has gone away")
                fresh = self._log[at:]
            for observed in fresh:
                at = observed.seq
                yield observed

    async def create(self, order: CreateOrder) -> Observed:
        """Start one, or queue it."""
        return await self._once(f"create {order.op}", order.sandbox_id, lambda: self._create(order))

    async def settled(self, sandbox_id: str, timeout_seconds: float) -> Observed:
        """Wait until nothing is under way."""
        self._answer("settled", sandbox_id)
        machine = self._find(sandbox_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds), self._news:
                await self._news.wait_for(lambda: is_settled(machine))
        return latest(machine)

    async def pause(self, sandbox_id: str, op: str, actor: str) -> Observed:
        """Running to paused."""
        return await self._move(sandbox_id, op, actor, Act.PAUSE)

    async def resume(
        self, sandbox_id: str, op: str, actor: str, room_seconds: float | None = None
    ) -> Observed:
        """Paused to running."""
        return await self._move(sandbox_id, op, actor, Act.RESUME)

    async def destroy(self, sandbox_id: str, op: str, actor: str) -> Observed:
        """To stopped, from anywhere."""
        observed = await self._move(sandbox_id, op, actor, Act.DESTROY)
        await self._admit_next()
        return observed

    # --- how it does it ---

    async def _create(self, order: CreateOrder) -> Observed:
        if order.sandbox_id in self.machines:
            raise Conflict(f"{order.sandbox_id} exists already")
        inside = Inside(self.folder / order.sandbox_id, order.guest.env)
        if order.recover_from is not None:
            left = self._find(order.recover_from)
            states.check(Act.RECOVER, left.state, order.recover_from)
            ending = latest(left).ending
            kept = ending is not None and ending.recoverable_until is not None
            if left.state is State.STOPPED and not kept:
                raise NotFound(f"the disk of {order.recover_from} is not kept (any more)")
            shutil.copytree(left.inside.folder, inside.folder, symlinks=True, dirs_exist_ok=True)
        if self._running() >= self.capacity and not order.queue:
            raise CapacityExhausted(
                f"{order.sizes.memory_mb} MB were asked, none are free",
                hint="destroy or pause a sandbox, or let it queue",
            )
        machine = self.machines[order.sandbox_id] = Machine(order, inside)
        if self._running() >= self.capacity:
            place = QueuePlace(position=self._queued(), estimated_wait_seconds=1.0)
            return await self._report(
                machine, State.CREATING, "queued", "request", order.actor, queue=place
            )
        return await self._start(machine)

    async def _start(self, machine: Machine) -> Observed:
        order = machine.order
        async with machine.turn:
            await self._report(machine, State.CREATING, "starting", "request", order.actor)
            await self.gate.wait()
            origin: StartedFrom = "recovery" if order.recover_from else "warm"
            timings = Timings(restore_ms=1.0, total_ms=2.0)
            self.meters.created(origin, timings)
            return await self._report(
                machine,
                State.RUNNING,
                None,
                "request",
                order.actor,
                started_from=origin,
                timings=timings,
            )

    async def _admit_next(self) -> None:
        for machine in list(self.machines.values()):
            queued = machine.latest is not None and machine.latest.operation == "queued"
            if queued and self._running() < self.capacity:
                await self._start(machine)

    def _running(self) -> int:
        return sum(
            machine.state is State.RUNNING
            or (machine.latest is not None and machine.latest.operation == "starting")
            for machine in self.machines.values()
        )

    def _queued(self) -> int:
        return sum(machine.state is State.CREATING for machine in self.machines.values())

    async def _move(self, sandbox_id: str, op: str, actor: str, act: Act) -> Observed:
        async def moved() -> Observed:
            machine = self._find(sandbox_id)
            async with machine.turn:
                if states.is_settled(act, machine.state):
                    return latest(machine)
                move = states.check(act, machine.state, sandbox_id)
                await self._report(machine, machine.state, move.operation, "request", actor)
                await self.gate.wait()
                assert move.to is not None
                ending = None
                with self.meters.act(act):
                    if act is Act.DESTROY:
                        await machine.inside.processes.kill()
                        ending = Ending(cause="request", reason="destroyed")
                return await self._report(machine, move.to, None, "request", actor, ending=ending)

        return await self._once(f"{act} {op}", sandbox_id, moved)

    @asynccontextmanager
    async def _acting(self, sandbox_id: str, act: Act, actor: str) -> AsyncIterator[Machine]:
        machine = self._find(sandbox_id)
        async with machine.turn:
            move = states.check(act, machine.state, sandbox_id)
            await self._report(machine, machine.state, move.operation, "request", actor)
            await self.gate.wait()
            try:
                with self.meters.act(act):
                    yield machine
            finally:
                await self._report(machine, machine.state, None, "request", actor)

    async def _once(self, key: str, what: str, act: Callable[[], Awaitable[T]]) -> T:
        """Do an act, or answer its repeat; refused acts may be asked again."""
        self._answer(key, what)
        if self._refusals:
            raise self._refusals.popleft()
        if key not in self._journal:
            self._journal[key] = asyncio.ensure_future(act())
        doing: asyncio.Future[T] = self._journal[key]
        try:
            result = await asyncio.shield(doing)
        except RunToolsError:
            self._journal.pop(key, None)
            raise
        if self._lost_answers:
            self._lost_answers -= 1
            raise HostUnavailable("the connection to the fake host broke")
        return result

    def _answer(self, name: str, what: str) -> None:
        self.calls.append((name, what))
        if self.unavailable:
            raise HostUnavailable("the fake host does not answer")

    def _find(self, sandbox_id: str) -> Machine:
        if sandbox_id not in self.machines:
            raise NotFound(f"no sandbox {sandbox_id} on this host")
        return self.machines[sandbox_id]

    def _alive(self, sandbox_id: str, name: str) -> Machine:
        self._answer(name, sandbox_id)
        machine = self._find(sandbox_id)
        if machine.state is State.STOPPED:
            raise SandboxStopped(f"{sandbox_id} has stopped")
        return machine

    async def _awake(self, sandbox_id: str, name: str) -> Machine:
        """A running sandbox; a paused one is woken."""
        machine = self._alive(sandbox_id, name)
        if machine.state is State.PAUSED:
            async with machine.turn:
                if machine.state is State.PAUSED:
                    await self._report(machine, State.PAUSED, "resuming", "request", "host")
                    await self._report(machine, State.RUNNING, None, "request", "host")
        return machine

    async def _report(
        self,
        machine: Machine,
        state: State,
        operation: Any,
        cause: Cause,
        actor: str,
        *,
        ending: Ending | None = None,
        queue: QueuePlace | None = None,
        timings: Timings | None = None,
        started_from: StartedFrom | None = None,
    ) -> Observed:
        machine.state = state
        before = machine.latest
        observed = Observed(
            sandbox_id=machine.order.sandbox_id,
            epoch=self.epoch,
            seq=0,
            at=self.clock.now(),
            state=state.value,
            operation=operation,
            cause=cause,
            actor=actor,
            isolation=self.isolation,
            started_from=started_from or (before.started_from if before else None),
            timings=timings or (before.timings if before else None),
            queue=queue,
            ending=ending,
        )
        return await self._append(observed, machine)

    async def _append(self, observed: Observed, machine: Machine) -> Observed:
        async with self._news:
            self.seq += 1
            machine.latest = observed.model_copy(update={"epoch": self.epoch, "seq": self.seq})
            self._log.append(machine.latest)
            self._news.notify_all()
            return machine.latest


def latest(machine: Machine) -> Observed:
    """What was last reported of it."""
    assert machine.latest is not None
    return machine.latest


def is_settled(machine: Machine) -> bool:
    """Whether nothing is under way."""
    seen = latest(machine)
    return seen.state == "stopped" or (seen.state != "creating" and seen.operation is None)
