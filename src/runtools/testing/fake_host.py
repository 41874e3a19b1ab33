"""A host in memory: the Host port with real states, reports and journal, and no machine behind it.

What lives is in `fake_life`, with all the ways to make it fail; commands and files are in `fake_inside`.
Here they become the port, with builds and space beside them.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from runtools.errors import (
    Conflict,
    FileIsDirectory,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    ProcessEnded,
)
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import (
    BuildOrder,
    Built,
    Child,
    CreateOrder,
    FileBody,
    Forked,
    Kept,
    Observed,
    Stored,
)
from runtools.platform.core.states import Act, State
from runtools.platform.kit.clock import Clock
from runtools.sdk.shapes.egress import Egress, EgressLog, EgressRules
from runtools.sdk.shapes.inside import (
    ExecRequest,
    ExecResult,
    FileChange,
    FileEntry,
    Listing,
    Stats,
    StatsGap,
    StatsHistory,
    StatsPoint,
)
from runtools.sdk.shapes.processes import (
    Octets,
    OutputEnd,
    OutputPiece,
    Process,
    ProcessRequest,
    Stream,
    TerminalSize,
)
from runtools.sdk.shapes.sandboxes import DiskUse, Isolation, Pruned
from runtools.sdk.shapes.templates import BuildLine
from runtools.testing.fake_inside import Inside
from runtools.testing.fake_life import FakeLife, Machine, latest
from runtools.testing.fake_processes import FakeProcess, check_limit

T = TypeVar("T")
_STEPS = ("bootstrap", "packages", "image")


@dataclass
class Build:
    """A fake template build."""

    order: BuildOrder
    lines: list[BuildLine] = field(default_factory=list)
    state: Literal["building", "ready", "failed"] = "building"


class FakeHost(FakeLife):
    """See the module. ``script`` answers commands in place of local processes."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        capacity: int = 1000,
        isolation: Isolation = "hardware",
        script: Callable[[ExecRequest], ExecResult] | None = None,
    ) -> None:
        super().__init__(folder, clock=clock, capacity=capacity, isolation=isolation)
        self.script = script
        self.builds: dict[str, Build] = {}
        self._dropped: set[str] = set()
        self.snapshots: dict[str, tuple[str, Path]] = {}
        self.sizes: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- copies ---

    async def snapshot(self, sandbox_id: str, op: str, actor: str, snapshot_id: str) -> Kept:
        """Copy its files."""

        async def act() -> Kept:
            async with self._acting(sandbox_id, Act.SNAPSHOT, actor) as machine:
                path = self.folder / snapshot_id
                shutil.copytree(machine.inside.folder, path, symlinks=True)
                self.snapshots[snapshot_id] = (sandbox_id, path)
            return Kept(snapshot_id=snapshot_id, size_bytes=4096, standstill_ms=1.5)

        return await self._once(f"snapshot {op}", sandbox_id, act)

    async def rollback(self, sandbox_id: str, op: str, actor: str, snapshot_id: str) -> Observed:
        """Put the files of a snapshot back."""

        async def act() -> Observed:
            if snapshot_id not in self.snapshots:
                raise NotFound(f"no snapshot {snapshot_id}")
            async with self._acting(sandbox_id, Act.ROLLBACK, actor) as machine:
                shutil.rmtree(machine.inside.folder)
                machine.inside.life += 1
                before = machine.inside.processes
                machine.inside.processes = before.copy()
                await before.kill()
                shutil.copytree(
                    self.snapshots[snapshot_id][1], machine.inside.folder, symlinks=True
                )
            return latest(machine)

        return await self._once(f"rollback {op}", sandbox_id, act)

    async def fork(self, sandbox_id: str, op: str, actor: str, children: list[Child]) -> Forked:
        """Copies of its files and environment."""

        async def act() -> Forked:
            async with self._acting(sandbox_id, Act.FORK, actor) as parent:
                born = [self._copied(parent, child) for child in children]
                for machine in born:
                    await self._report(machine, State.CREATING, "starting", "request", actor)
                await self.births.wait()
                made = [
                    await self._report(
                        machine, State.RUNNING, None, "request", actor, started_from="fork"
                    )
                    for machine in born
                ]
            return Forked(children=made, standstill_ms=2.5)

        if f"fork {op}" in self._journal and self._forks[op] != children:
            raise IdempotencyMismatch(f"op {op} was used before for other children")
        self._forks[op] = children
        return await self._once(f"fork {op}", sandbox_id, act)

    def _copied(self, parent: Machine, child: Child) -> Machine:
        order = parent.order.model_copy(update={"sandbox_id": child.sandbox_id})
        folder = self.folder / child.sandbox_id
        shutil.copytree(parent.inside.folder, folder, symlinks=True)
        machine = self.machines[child.sandbox_id] = Machine(
            order, Inside(folder, parent.inside.env)
        )
        machine.inside.processes = parent.inside.processes.copy()
        return machine

    async def known(self) -> builtins.list[Observed]:
        """The latest report of each."""
        self._answer("known", "")
        return [machine.latest for machine in self.machines.values() if machine.latest]

    async def order(self, sandbox_id: str) -> CreateOrder:
        """How it was ordered."""
        self._answer("order", sandbox_id)
        return self._find(sandbox_id).order

    async def drop_snapshot(self, snapshot_id: str) -> None:
        """Forget it."""
        self._answer("drop_snapshot", snapshot_id)
        if snapshot_id not in self.snapshots:
            raise NotFound(f"no snapshot {snapshot_id}")
        shutil.rmtree(self.snapshots.pop(snapshot_id)[1])

    async def destroy(self, sandbox_id: str, op: str, actor: str) -> Observed:
        """To stopped, from anywhere; its snapshots go with it, and the disk kept of an ended one."""
        observed = await super().destroy(sandbox_id, op, actor)
        if observed.ending is not None and observed.ending.recoverable_until is not None:
            ending = observed.ending.model_copy(update={"recoverable_until": None})
            machine, by = self._find(sandbox_id), observed.actor
            observed = await self._report(
                machine, State.STOPPED, None, observed.cause, by, ending=ending
            )
        for one in [name for name, (of, _) in self.snapshots.items() if of == sandbox_id]:
            shutil.rmtree(self.snapshots.pop(one)[1])
        return observed

    # --- inside ---

    async def exec(self, sandbox_id: str, request: ExecRequest) -> ExecResult:
        """Run a command; a repeat of its process id is answered."""
        machine = await self._awake(sandbox_id, "exec")
        assert request.process_id is not None
        if request.process_id in machine.done:
            return machine.done[request.process_id]
        if request.process_id in machine.unbegun:
            raise ProcessEnded(f"command {request.process_id} was ended before it had begun")
        with self.meters.exec() as results:
            result = self.script(request) if self.script else await machine.inside.exec(request)
            results.append(result)
        machine.done[request.process_id] = result
        return result

    async def signal_exec(self, sandbox_id: str, process_id: str, op: str, signal: int) -> None:
        """Signal a running command, or see to it that it never begins."""
        machine = await self._awake(sandbox_id, "signal_exec")
        if process_id in machine.done:
            raise ProcessEnded(f"command {process_id} has ended")
        if not machine.inside.signal(process_id, signal):
            machine.unbegun.add(process_id)

    async def start_process(self, sandbox_id: str, request: ProcessRequest) -> Process:
        """Start one; a repeat of its id is answered."""
        machine = await self._awake(sandbox_id, "start_process")
        if request.process_id in machine.unbegun:
            raise ProcessEnded(f"process {request.process_id} was ended before it had begun")
        return machine.inside.told((await machine.inside.start_process(request)).shape())

    async def list_processes(self, sandbox_id: str) -> builtins.list[Process]:
        """All that are known."""
        machine = self._alive(sandbox_id, "list_processes")
        return [machine.inside.told(each.shape()) for each in machine.inside.processes.all()]

    async def get_process(self, sandbox_id: str, process_id: str) -> Process:
        """How it stands."""
        machine = self._alive(sandbox_id, "get_process")
        return machine.inside.told(machine.inside.processes.find(process_id).shape())

    async def wait_process(self, sandbox_id: str, process_id: str, timeout_ms: int) -> Process:
        """Wait for its end."""
        machine = self._alive(sandbox_id, "wait_process")
        seen = await machine.inside.processes.find(process_id).wait(timeout_ms / 1000)
        return machine.inside.told(seen)

    async def read_output(
        self,
        sandbox_id: str,
        process_id: str,
        stream: Stream,
        start: int,
        limit: int,
        history: str | None = None,
    ) -> OutputPiece:
        """What is there."""
        check_limit(limit)
        machine = self._alive(sandbox_id, "read_output")
        machine.inside.check_history(history)
        process = machine.inside.processes.find(process_id)
        piece = process.streams[stream].piece(start, limit)
        if piece.data:
            await self._awake(sandbox_id, "read_output")
        return piece

    async def follow_output(
        self,
        sandbox_id: str,
        process_id: str,
        stream: Stream,
        start: int,
        history: str | None = None,
    ) -> AsyncIterator[OutputPiece | OutputEnd]:
        """What comes."""
        inside = self._alive(sandbox_id, "follow_output").inside
        inside.check_history(history)
        history = inside.history
        async for item in inside.processes.find(process_id).follow(stream, start):
            inside.check_history(history)
            if isinstance(item, OutputEnd):
                yield OutputEnd(offset=item.offset, process=inside.told(item.process))
            else:
                yield item

    async def send_input(self, sandbox_id: str, process_id: str, op: str, data: Octets) -> int:
        """Give it input."""
        return (await self._process(sandbox_id, process_id)).send(op, data)

    async def close_input(self, sandbox_id: str, process_id: str, op: str) -> Process:
        """End its input."""
        seen = (await self._process(sandbox_id, process_id)).close(op)
        return self._find(sandbox_id).inside.told(seen)

    async def signal_process(
        self, sandbox_id: str, process_id: str, op: str, signal: int
    ) -> Process:
        """Send it a signal."""
        if not 1 <= signal <= 64:
            raise InvalidRequest(f"there is no signal {signal}")
        seen = (await self._process(sandbox_id, process_id)).send_signal(op, signal)
        return self._find(sandbox_id).inside.told(seen)

    async def end_process(self, sandbox_id: str, process_id: str) -> None:
        """End it, or see to it that it never begins; it has no sleep to wait for the end of."""
        machine = self._alive(sandbox_id, "end_process")
        try:
            process = machine.inside.processes.find(process_id)
        except NotFound:
            machine.unbegun.add(process_id)
            return
        with contextlib.suppress(ProcessEnded):
            process.send_signal(new_id("opn"), signal.SIGKILL)
        await process.wait(10)

    async def resize_terminal(
        self, sandbox_id: str, process_id: str, op: str, size: TerminalSize
    ) -> Process:
        """Make its terminal another size."""
        seen = (await self._process(sandbox_id, process_id)).resize(op, size)
        return self._find(sandbox_id).inside.told(seen)

    async def _process(self, sandbox_id: str, process_id: str) -> FakeProcess:
        machine = await self._awake(sandbox_id, "process")
        return machine.inside.processes.find(process_id)

    async def stats(self, sandbox_id: str) -> Stats:
        """Its own; the last ones where it is paused."""
        machine = self._alive(sandbox_id, "stats")
        if machine.state is not State.PAUSED or machine.last_stats is None:
            machine.last_stats = await machine.inside.stats()
        return machine.last_stats

    async def set_egress(self, sandbox_id: str, generation: int, egress: Egress) -> None:
        """Note it; what is older than what is noted is refused."""
        machine = self._alive(sandbox_id, "set_egress")
        if generation < (held := machine.egress_generation):
            raise Conflict("a newer policy is in force", details={"egress_generation": held})
        rules = EgressRules(allow=egress.allow, deny=egress.deny)
        changed = {"internet": egress.internet, "egress": rules}
        machine.order = machine.order.model_copy(update=changed)
        machine.egress_generation = generation

    async def set_limits(
        self, sandbox_id: str, idle_timeout_seconds: int, max_lifetime_seconds: int | None
    ) -> None:
        """Note them in the order."""
        machine = self._alive(sandbox_id, "set_limits")
        limits = {
            "idle_timeout_seconds": idle_timeout_seconds,
            "max_lifetime_seconds": max_lifetime_seconds,
        }
        machine.order = machine.order.model_copy(update=limits)

    async def hand_over(self, sandbox_id: str, org_id: str) -> None:
        """Note it in the order."""
        machine = self._alive(sandbox_id, "hand_over")
        machine.order = machine.order.model_copy(update={"org_id": org_id})

    async def egress_log(self, sandbox_id: str) -> EgressLog:
        """What a test has put into ``refused`` of the machine."""
        self._answer("egress_log", sandbox_id)
        return EgressLog(refusals=self._find(sandbox_id).refused, forgotten=0)

    async def stats_history(self, sandbox_id: str) -> StatsHistory:
        """One point where it was measured, and a gap since where it is paused."""
        self._answer("stats_history", sandbox_id)
        machine, now = self._find(sandbox_id), self.clock.now()
        since, known = now - timedelta(hours=1), machine.last_stats
        points = [] if known is None else [_point(known)]
        gaps = []
        if machine.state is State.PAUSED:
            begun = points[-1].at if points else since
            gaps.append(StatsGap(since=begun, until=now, reason="paused"))
        return StatsHistory(interval_seconds=10, since=since, until=now, points=points, gaps=gaps)

    async def console(self, sandbox_id: str, lines: int) -> list[str]:
        """A few lines."""
        self._answer("console", sandbox_id)
        self._find(sandbox_id)
        return ["booting", "ready"][-lines:]

    async def stat(self, sandbox_id: str, path: str) -> FileEntry:
        """See `Inside.stat`."""
        return (await self._awake(sandbox_id, "stat")).inside.stat(path)

    async def list(self, sandbox_id: str, path: str, depth: int) -> Listing:
        """See `Inside.list`."""
        return (await self._awake(sandbox_id, "list")).inside.list(path, depth)

    async def mkdir(self, sandbox_id: str, op: str, path: str, mode: int) -> FileEntry:
        """See `Inside.mkdir`."""
        return await self._file(sandbox_id, op, lambda inside: inside.mkdir(path, mode))

    async def move(
        self, sandbox_id: str, op: str, source: str, target: str, overwrite: bool
    ) -> FileEntry:
        """See `Inside.move`."""
        return await self._file(sandbox_id, op, lambda i: i.move(source, target, overwrite))

    async def copy(
        self, sandbox_id: str, op: str, source: str, target: str, overwrite: bool
    ) -> FileEntry:
        """See `Inside.copy`."""
        return await self._file(sandbox_id, op, lambda i: i.copy(source, target, overwrite))

    async def edit(
        self, sandbox_id: str, op: str, path: str, old: str, new: str, occurrences: int
    ) -> FileEntry:
        """See `Inside.edit`."""
        return await self._file(
            sandbox_id, op, lambda inside: inside.edit(path, old, new, occurrences)
        )

    async def chmod(self, sandbox_id: str, op: str, path: str, mode: int) -> FileEntry:
        """See `Inside.chmod`."""
        return await self._file(sandbox_id, op, lambda inside: inside.chmod(path, mode))

    async def remove(self, sandbox_id: str, op: str, path: str, recursive: bool) -> None:
        """See `Inside.remove`."""
        await self._file(sandbox_id, op, lambda inside: inside.remove(path, recursive))

    async def read(
        self, sandbox_id: str, path: str, start: int, end: int | None
    ) -> tuple[FileBody, AsyncIterator[bytes]]:
        """See `Inside.read`."""
        inside = (await self._awake(sandbox_id, "read")).inside
        entry = inside.stat(path)
        if entry.kind == "directory":
            raise FileIsDirectory(f"{path} is a folder")
        last = entry.size if end is None else min(end, entry.size)
        first = min(start, last)
        body = FileBody(entry=entry, start=first, end=last)
        return body, inside.read(path, first, last)

    async def write(
        self,
        sandbox_id: str,
        op: str,
        path: str,
        chunks: AsyncIterator[bytes],
        mode: int | None,
        how: Literal["replace", "append"],
    ) -> FileEntry:
        """See `Inside.write`."""
        machine = await self._awake(sandbox_id, "write")

        async def act() -> FileEntry:
            return await machine.inside.write(path, chunks, mode, how)

        return await self._once(f"write {op}", sandbox_id, act)

    async def download(self, sandbox_id: str, path: str) -> AsyncIterator[bytes]:
        """See `Inside.download`."""
        inside = (await self._awake(sandbox_id, "download")).inside
        inside.stat(path)
        return inside.download(path)

    async def upload(
        self, sandbox_id: str, op: str, path: str, chunks: AsyncIterator[bytes]
    ) -> Listing:
        """See `Inside.upload`."""
        machine = await self._awake(sandbox_id, "upload")
        return await self._once(
            f"upload {op}", sandbox_id, lambda: machine.inside.upload(path, chunks)
        )

    async def watch(
        self, sandbox_id: str, path: str, recursive: bool, after: int | None
    ) -> AsyncIterator[FileChange]:
        """See `Inside.watch`; silent while it is paused."""
        waking = after is None
        machine = (
            await self._awake(sandbox_id, "watch") if waking else self._alive(sandbox_id, "watch")
        )
        if waking or machine.state is State.RUNNING:
            found = await machine.inside.watch(path, recursive, after)
        else:
            found = []
        if not (found and found[0].kind in {"armed", "overflow"}):
            yield FileChange(id=after or 0, kind="armed", path=path, is_directory=True)
        while True:
            for change in found:
                yield change
                after = change.id
            await asyncio.sleep(0.01)
            machine = self._alive(sandbox_id, "watch")
            if machine.state is State.RUNNING:
                found = await machine.inside.watch(path, recursive, after)
            else:
                found = []

    # --- templates and space ---

    async def build(self, order: BuildOrder) -> Built:
        """Three lines of log while the gate is open, then ready; ``run`` with "fail" in it fails.

        One with "sleep" in it never ends.
        """
        self._answer("build", order.version_id)
        if order.version_id in self._dropped:
            raise Conflict(f"{order.slug}@{order.version} was deleted before its build began")
        if order.version_id not in self.builds:
            self.builds[order.version_id] = Build(order)
            task = asyncio.create_task(self._building(self.builds[order.version_id]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await self.built(order.version_id)

    async def built(self, version_id: str) -> Built:
        """How it stands."""
        self._answer("built", version_id)
        build = self._build(version_id)
        return Built(
            version_id=version_id,
            state=build.state,
            progress=len(build.lines) / len(_STEPS),
            step=build.lines[-1].step if build.lines else "",
            size_bytes=1 << 20 if build.state == "ready" else 0,
            error="the script failed" if build.state == "failed" else None,
        )

    async def build_log(self, version_id: str, after: int) -> AsyncIterator[BuildLine]:
        """The lines after a position, until the build has ended."""
        self._answer("build_log", version_id)
        build = self._build(version_id)
        while True:
            async with self._news:
                while len(build.lines) <= after and build.state == "building":
                    await self._news.wait()
                fresh = build.lines[after:]
            if not fresh:
                return
            for line in fresh:
                after = line.n
                yield line

    async def drop_template(self, version_id: str) -> None:
        """Forget the version, ending its build."""
        self._answer("drop_template", version_id)
        self._dropped.add(version_id)
        build = self._build(version_id)
        del self.builds[version_id]
        async with self._news:
            build.state = "failed"
            self._news.notify_all()

    async def disk_use(self) -> DiskUse:
        """Round figures."""
        self._answer("disk_use", "")
        return DiskUse(
            total_bytes=1 << 35,
            free_bytes=1 << 34,
            templates_bytes=len(self.builds) << 20,
            warm_bytes=0,
            sandboxes_bytes=len(self.machines) << 20,
            snapshots_bytes=len(self.snapshots) << 20,
            ended_bytes=0,
        )

    async def stored(self) -> builtins.list[Stored]:
        """A megabyte each, and for each snapshot; else what a test has said."""
        self._answer("stored", "")
        living = [name for name, one in self.machines.items() if one.state is not State.STOPPED]
        sizes = Counter([*living, *(of for of, _ in self.snapshots.values())])
        found = {name: count << 20 for name, count in sizes.items()} | self.sizes
        return [Stored(sandbox_id=name, size_bytes=size) for name, size in found.items()]

    async def prune(self, ended: bool, warm: bool) -> Pruned:
        """Forget the files of ended sandboxes."""
        self._answer("prune", "")
        gone = [m for m in self.machines.values() if m.state is State.STOPPED] if ended else []
        for machine in gone:
            self.forget(machine.order.sandbox_id)
        return Pruned(ended_sandboxes=len(gone), warm_snapshots=0, freed_bytes=len(gone) << 20)

    async def _building(self, build: Build) -> None:
        for n, step in enumerate(_STEPS, 1):
            await self.gate.wait()
            at = self.clock.now()
            line = BuildLine(n=n, at=at, progress=n / len(_STEPS), step=step, text=f"{step} done")
            async with self._news:
                build.lines.append(line)
                self._news.notify_all()
        run = build.order.run or ""
        async with self._news:
            await self._news.wait_for(lambda: "sleep" not in run or build.state != "building")
            build.state = "failed" if "fail" in run else "ready"
            self._news.notify_all()

    def _build(self, version_id: str) -> Build:
        if version_id not in self.builds:
            raise NotFound(f"no template version {version_id} on this host")
        return self.builds[version_id]

    async def _file(self, sandbox_id: str, op: str, act: Callable[[Inside], T]) -> T:
        machine = await self._awake(sandbox_id, "file")

        async def once() -> T:
            return act(machine.inside)

        doing: Callable[[], Awaitable[T]] = once
        return await self._once(f"file {op}", sandbox_id, doing)


def _point(stats: Stats) -> StatsPoint:
    return StatsPoint(
        at=stats.measured_at,
        seconds=10.0,
        cpu_percent=stats.cpu_percent,
        memory_bytes=stats.memory_used_bytes,
        disk_bytes=stats.disk_used_bytes,
        received_bytes=0,
        sent_bytes=0,
        guest_memory_used_bytes=stats.memory_used_bytes,
        guest_disk_used_bytes=stats.disk_used_bytes,
    )
